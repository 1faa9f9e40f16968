"""Changes nothing: a new database has no resource type to rename."""

revision = "mitaka02"
down_revision = "mitaka01"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
