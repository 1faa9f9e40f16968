"""Images have a second checksum, of an algorithm of choice."""

import sqlalchemy as sa

from glimpse.migrations import steps

revision = "rocky_expand02"
down_revision = "rocky_expand01"
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.add_column("images", sa.Column("os_hash_algo", sa.String(64)))
    steps.add_column("images", sa.Column("os_hash_value", sa.String(128)))
    steps.create_index("os_hash_value_image_idx", "images", ["os_hash_value"])
