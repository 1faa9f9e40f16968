"""Changes nothing: `liberty` creates the tables with `visibility`."""

revision = "ocata_expand01"
down_revision = "mitaka02"
branch_labels = "expand"
depends_on = None


def upgrade() -> None:
    pass
