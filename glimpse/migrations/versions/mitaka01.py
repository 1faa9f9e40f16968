"""Changes nothing: `liberty` creates the indexes on the times of images."""

revision = "mitaka01"
down_revision = "liberty"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
