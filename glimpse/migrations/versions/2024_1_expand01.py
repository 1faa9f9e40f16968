"""The image cache is recorded in the database: which node holds which image."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, DateTime, Integer, String

from glimpse.migrations import steps

revision = "2024_1_expand01"
down_revision = "2023_1_expand01"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite numbers rows only in a column that is INTEGER to the letter.
    big = BigInteger().with_variant(Integer(), "sqlite")
    metadata = sa.MetaData()
    nodes = sa.Table(
        "node_reference",
        metadata,
        Column("node_reference_id", big, primary_key=True),
        Column("node_reference_url", String(255), nullable=False),
        sa.UniqueConstraint("node_reference_url", name="uq_node_reference_node_reference_url"),
        mysql_engine="InnoDB",
        mysql_charset="utf8",
    )
    cached = sa.Table(
        "cached_images",
        metadata,
        Column("id", big, primary_key=True),
        Column("image_id", String(36), nullable=False),
        Column("last_accessed", DateTime, nullable=False),
        Column("last_modified", DateTime, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("hits", Integer, nullable=False),
        Column("checksum", String(32)),
        Column("node_reference_id", big, sa.ForeignKey(nodes.c.node_reference_id), nullable=False),
        sa.UniqueConstraint("image_id", "node_reference_id", name="ix_cached_images_image_id_node_reference_id"),
        mysql_engine="InnoDB",
        mysql_charset="utf8",
    )
    steps.create_table(nodes)
    steps.create_table(cached)
