"""Changes nothing; Glance has a revision of this name."""

revision = "queens_contract01"
down_revision = "pike_contract01"
branch_labels = None
depends_on = "queens_expand01"


def upgrade() -> None:
    pass
