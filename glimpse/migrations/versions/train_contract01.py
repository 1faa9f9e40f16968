"""Changes no table; past it, `backend` in a location's metadata is the operator's own word."""

revision = "train_contract01"
down_revision = "rocky_contract02"
branch_labels = None
depends_on = "train_expand01"


def upgrade() -> None:
    pass
