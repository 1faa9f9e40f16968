"""Changes nothing; Glance has a revision of this name."""

revision = "pike_expand01"
down_revision = "ocata_expand01"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
