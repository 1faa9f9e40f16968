"""Images can be hidden from lists."""

import sqlalchemy as sa

from glimpse.migrations import steps

revision = "rocky_expand01"
down_revision = "queens_expand01"
branch_labels = None
depends_on = None


def upgrade() -> None:
    hidden: sa.Column[bool] = sa.Column("os_hidden", sa.Boolean(), nullable=False, server_default=sa.false())
    steps.add_column("images", hidden)
    steps.create_index("os_hidden_image_idx", "images", ["os_hidden"])
