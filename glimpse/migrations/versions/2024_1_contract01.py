"""Changes nothing; Glance has a revision of this name."""

revision = "2024_1_contract01"
down_revision = "2023_1_contract01"
branch_labels = None
depends_on = "2024_1_expand01"


def upgrade() -> None:
    pass
