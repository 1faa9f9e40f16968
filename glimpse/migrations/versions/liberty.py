"""The tables as they are after Ocata, with `images.visibility` and without `images.is_public`.

Glance walks through Liberty, Mitaka and Ocata to get here; a new database has no rows that would need the walk, and
an old one is refused before this runs (`glimpse.db.schema`). Frozen: what came later is in later revisions.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, DateTime, ForeignKey, ForeignKeyConstraint, Index, Integer, String, Text

from glimpse.migrations import steps

revision = "liberty"
down_revision = None
branch_labels = None
depends_on = None

_CHECKED = sa.Boolean(create_constraint=True)
# Glance rebuilt `images` on SQLite on its way, which lost the checks.
_CHECKED_IMAGE = sa.Boolean(create_constraint=True).with_variant(sa.Boolean(), "sqlite")
_SIZE = sa.BigInteger().with_variant(Integer(), "sqlite")


def upgrade() -> None:
    metadata = sa.MetaData()
    _images(metadata)
    _tasks(metadata)
    _metadefs(metadata)
    for table in metadata.sorted_tables:
        steps.create_table(table)


def _table(metadata: sa.MetaData, name: str, *items: Column[Any] | sa.Constraint | Index) -> None:
    sa.Table(name, metadata, *items, mysql_engine="InnoDB", mysql_charset="utf8")


def _times() -> list[Column[Any]]:
    return [Column("created_at", DateTime, nullable=False), Column("updated_at", DateTime)]


def _soft_delete(kind: sa.Boolean = _CHECKED) -> list[Column[Any]]:
    return [*_times(), Column("deleted_at", DateTime), Column("deleted", kind, nullable=False)]


def _id() -> Column[Any]:
    return Column("id", Integer, primary_key=True)


def _images(metadata: sa.MetaData) -> None:
    visibility = sa.Enum("private", "public", "shared", "community", name="image_visibility")
    _table(
        metadata,
        "images",
        Column("id", String(36), primary_key=True),
        Column("name", String(255)),
        Column("size", _SIZE),
        Column("status", String(30), nullable=False),
        *_soft_delete(_CHECKED_IMAGE),
        Column("disk_format", String(20)),
        Column("container_format", String(20)),
        Column("checksum", String(32)),
        Column("owner", String(255)),
        Column("min_disk", Integer, nullable=False),
        Column("min_ram", Integer, nullable=False),
        Column("protected", _CHECKED_IMAGE, nullable=False, server_default=sa.false()),
        Column("virtual_size", _SIZE),
        Column("visibility", visibility, nullable=False, server_default="shared"),
        Index("checksum_image_idx", "checksum"),
        Index("created_at_image_idx", "created_at"),
        Index("ix_images_deleted", "deleted"),
        Index("owner_image_idx", "owner"),
        Index("updated_at_image_idx", "updated_at"),
        Index("visibility_image_idx", "visibility"),
    )
    _table(
        metadata,
        "image_properties",
        _id(),
        Column("image_id", String(36), ForeignKey("images.id"), nullable=False),
        Column("name", String(255), nullable=False),
        Column("value", Text),
        *_soft_delete(),
        sa.UniqueConstraint("image_id", "name", name="ix_image_properties_image_id_name"),
        Index("ix_image_properties_deleted", "deleted"),
        Index("ix_image_properties_image_id", "image_id"),
    )
    _table(
        metadata,
        "image_tags",
        _id(),
        Column("image_id", String(36), ForeignKey("images.id"), nullable=False),
        Column("value", String(255), nullable=False),
        *_soft_delete(),
        Index("ix_image_tags_image_id", "image_id"),
        Index("ix_image_tags_image_id_tag_value", "image_id", "value"),
    )
    _table(
        metadata,
        "image_locations",
        _id(),
        Column("image_id", String(36), ForeignKey("images.id"), nullable=False),
        Column("value", Text, nullable=False),
        *_soft_delete(),
        Column("meta_data", Text),
        Column("status", String(30), nullable=False, server_default="active"),
        Index("ix_image_locations_deleted", "deleted"),
        Index("ix_image_locations_image_id", "image_id"),
    )
    _table(
        metadata,
        "image_members",
        _id(),
        Column("image_id", String(36), ForeignKey("images.id"), nullable=False),
        Column("member", String(255), nullable=False),
        Column("can_share", _CHECKED, nullable=False),
        *_soft_delete(),
        Column("status", String(20), nullable=False, server_default="pending"),
        sa.UniqueConstraint("image_id", "member", "deleted_at", name="image_members_image_id_member_deleted_at_key"),
        Index("ix_image_members_deleted", "deleted"),
        Index("ix_image_members_image_id", "image_id"),
        Index("ix_image_members_image_id_member", "image_id", "member"),
    )


def _tasks(metadata: sa.MetaData) -> None:
    _table(
        metadata,
        "tasks",
        Column("id", String(36), primary_key=True),
        Column("type", String(30), nullable=False),
        Column("status", String(30), nullable=False),
        Column("owner", String(255), nullable=False),
        Column("expires_at", DateTime),
        *_soft_delete(),
        Index("ix_tasks_deleted", "deleted"),
        Index("ix_tasks_owner", "owner"),
        Index("ix_tasks_status", "status"),
        Index("ix_tasks_type", "type"),
        Index("ix_tasks_updated_at", "updated_at"),
    )
    _table(
        metadata,
        "task_info",
        Column("task_id", String(36), ForeignKey("tasks.id"), primary_key=True),
        Column("input", Text),
        Column("result", Text),
        Column("message", Text),
    )


def _metadefs(metadata: sa.MetaData) -> None:
    _table(
        metadata,
        "metadef_namespaces",
        _id(),
        Column("namespace", String(80), nullable=False),
        Column("display_name", String(80)),
        Column("description", Text),
        Column("visibility", String(32)),
        Column("protected", _CHECKED),
        Column("owner", String(255), nullable=False),
        *_times(),
        sa.UniqueConstraint("namespace", name="uq_metadef_namespaces_namespace"),
        Index("ix_metadef_namespaces_owner", "owner"),
    )
    _table(
        metadata,
        "metadef_resource_types",
        _id(),
        Column("name", String(80), nullable=False),
        Column("protected", _CHECKED, nullable=False),
        *_times(),
        sa.UniqueConstraint("name", name="uq_metadef_resource_types_name"),
    )
    _table(
        metadata,
        "metadef_namespace_resource_types",
        Column("resource_type_id", Integer, primary_key=True),
        Column("namespace_id", Integer, primary_key=True),
        Column("properties_target", String(80)),
        Column("prefix", String(80)),
        *_times(),
        # In this order: MySQL numbers the names of foreign keys.
        ForeignKeyConstraint(["namespace_id"], ["metadef_namespaces.id"]),
        ForeignKeyConstraint(["resource_type_id"], ["metadef_resource_types.id"]),
        Index("ix_metadef_ns_res_types_namespace_id", "namespace_id"),
    )
    _of_namespace(
        metadata,
        "objects",
        Column("description", Text),
        Column("required", Text),
        Column("json_schema", Text, nullable=False),
    )
    _of_namespace(metadata, "properties", Column("json_schema", Text, nullable=False))
    _of_namespace(metadata, "tags")


def _of_namespace(metadata: sa.MetaData, kind: str, *columns: Column[Any]) -> None:
    _table(
        metadata,
        f"metadef_{kind}",
        _id(),
        Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id"), nullable=False),
        Column("name", String(80), nullable=False),
        *columns,
        *_times(),
        sa.UniqueConstraint("namespace_id", "name", name=f"uq_metadef_{kind}_namespace_id_name"),
        Index(f"ix_metadef_{kind}_name", "name"),
    )
