"""Changes nothing; Glance has a revision of this name."""

revision = "ussuri_contract01"
down_revision = "train_contract01"
branch_labels = None
depends_on = "ussuri_expand01"


def upgrade() -> None:
    pass
