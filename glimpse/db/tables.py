"""The tables of Glance 2026.2, as SQLAlchemy Core objects.

A database that Glance made is used as it is and can be handed back, so names, types, defaults and indexes are
Glance's, its oddities with them. This is the schema at the head of `glimpse.migrations`; tests compare both
with a reflection of a real Glance database.

Times are naive UTC. `size` and `virtual_size` are in bytes, `min_ram` in MiB, `min_disk` in GiB. Rows of
tables with a `deleted` column stay behind when their thing is deleted: normal queries want `deleted` false.
`image_locations.meta_data`, `task_info.input`, `task_info.result` and `json_schema` hold JSON as text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

VISIBILITIES = ("private", "public", "shared", "community")
_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8"}

metadata = MetaData()

# SQLite numbers rows only in a column that is INTEGER to the letter.
_BIG = BigInteger().with_variant(Integer(), "sqlite")
_CHECKED = Boolean(create_constraint=True)
# Glance rebuilt `images` on SQLite and lost its checks on the way.
_CHECKED_IMAGE = Boolean(create_constraint=True).with_variant(Boolean(), "sqlite")


def _times() -> list[Column[Any]]:
    return [Column("created_at", DateTime, nullable=False), Column("updated_at", DateTime)]


def _soft_delete(kind: Boolean = _CHECKED) -> list[Column[Any]]:
    return [*_times(), Column("deleted_at", DateTime), Column("deleted", kind, nullable=False)]


def _image_id() -> Column[Any]:
    return Column("image_id", String(36), ForeignKey("images.id"), nullable=False)


def _namespace_id() -> Column[Any]:
    return Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id"), nullable=False)


images = Table(
    "images",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(255)),
    Column("size", _BIG),
    Column("status", String(30), nullable=False),
    *_soft_delete(_CHECKED_IMAGE),
    Column("disk_format", String(20)),
    Column("container_format", String(20)),
    Column("checksum", String(32)),
    Column("owner", String(255)),
    Column("min_disk", Integer, nullable=False),
    Column("min_ram", Integer, nullable=False),
    Column("protected", _CHECKED_IMAGE, nullable=False, server_default=false()),
    Column("virtual_size", _BIG),
    Column("visibility", Enum(*VISIBILITIES, name="image_visibility"), nullable=False, server_default="shared"),
    Column("os_hidden", Boolean, nullable=False, server_default=false()),
    Column("os_hash_algo", String(64)),
    Column("os_hash_value", String(128)),
    Index("checksum_image_idx", "checksum"),
    Index("created_at_image_idx", "created_at"),
    Index("ix_images_deleted", "deleted"),
    Index("os_hash_value_image_idx", "os_hash_value"),
    Index("os_hidden_image_idx", "os_hidden"),
    Index("owner_image_idx", "owner"),
    Index("updated_at_image_idx", "updated_at"),
    Index("visibility_image_idx", "visibility"),
    **_MYSQL,
)

image_properties = Table(
    "image_properties",
    metadata,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("name", String(255), nullable=False),
    Column("value", Text),
    *_soft_delete(),
    UniqueConstraint("image_id", "name", name="ix_image_properties_image_id_name"),
    Index("ix_image_properties_deleted", "deleted"),
    Index("ix_image_properties_image_id", "image_id"),
    **_MYSQL,
)

image_tags = Table(
    "image_tags",
    metadata,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("value", String(255), nullable=False),
    *_soft_delete(),
    Index("ix_image_tags_image_id", "image_id"),
    Index("ix_image_tags_image_id_tag_value", "image_id", "value"),
    **_MYSQL,
)

image_locations = Table(
    "image_locations",
    metadata,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("value", Text, nullable=False),
    *_soft_delete(),
    Column("meta_data", Text),
    Column("status", String(30), nullable=False, server_default="active"),
    Index("ix_image_locations_deleted", "deleted"),
    Index("ix_image_locations_image_id", "image_id"),
    **_MYSQL,
)

image_members = Table(
    "image_members",
    metadata,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("member", String(255), nullable=False),
    Column("can_share", _CHECKED, nullable=False),
    *_soft_delete(),
    Column("status", String(20), nullable=False, server_default="pending"),
    UniqueConstraint("image_id", "member", "deleted_at", name="image_members_image_id_member_deleted_at_key"),
    Index("ix_image_members_deleted", "deleted"),
    Index("ix_image_members_image_id", "image_id"),
    Index("ix_image_members_image_id_member", "image_id", "member"),
    **_MYSQL,
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("type", String(30), nullable=False),
    Column("status", String(30), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("expires_at", DateTime),
    *_soft_delete(),
    Column("image_id", String(36)),
    Column("request_id", String(64)),
    Column("user_id", String(64)),
    Index("ix_tasks_deleted", "deleted"),
    Index("ix_tasks_image_id", "image_id"),
    Index("ix_tasks_owner", "owner"),
    Index("ix_tasks_status", "status"),
    Index("ix_tasks_type", "type"),
    Index("ix_tasks_updated_at", "updated_at"),
    **_MYSQL,
)

task_info = Table(
    "task_info",
    metadata,
    Column("task_id", String(36), ForeignKey("tasks.id"), primary_key=True),
    Column("input", Text),
    Column("result", Text),
    Column("message", Text),
    **_MYSQL,
)

node_reference = Table(
    "node_reference",
    metadata,
    Column("node_reference_id", _BIG, primary_key=True),
    Column("node_reference_url", String(255), nullable=False),
    UniqueConstraint("node_reference_url", name="uq_node_reference_node_reference_url"),
    **_MYSQL,
)

cached_images = Table(
    "cached_images",
    metadata,
    Column("id", _BIG, primary_key=True),
    Column("image_id", String(36), nullable=False),
    Column("last_accessed", DateTime, nullable=False),
    Column("last_modified", DateTime, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("hits", Integer, nullable=False),
    Column("checksum", String(32)),
    Column("node_reference_id", _BIG, ForeignKey("node_reference.node_reference_id"), nullable=False),
    UniqueConstraint("image_id", "node_reference_id", name="ix_cached_images_image_id_node_reference_id"),
    **_MYSQL,
)

metadef_namespaces = Table(
    "metadef_namespaces",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("namespace", String(80), nullable=False),
    Column("display_name", String(80)),
    Column("description", Text),
    Column("visibility", String(32)),
    Column("protected", _CHECKED),
    Column("owner", String(255), nullable=False),
    *_times(),
    UniqueConstraint("namespace", name="uq_metadef_namespaces_namespace"),
    Index("ix_metadef_namespaces_owner", "owner"),
    **_MYSQL,
)

metadef_objects = Table(
    "metadef_objects",
    metadata,
    Column("id", Integer, primary_key=True),
    _namespace_id(),
    Column("name", String(80), nullable=False),
    Column("description", Text),
    Column("required", Text),
    Column("json_schema", Text, nullable=False),
    *_times(),
    UniqueConstraint("namespace_id", "name", name="uq_metadef_objects_namespace_id_name"),
    Index("ix_metadef_objects_name", "name"),
    **_MYSQL,
)

metadef_properties = Table(
    "metadef_properties",
    metadata,
    Column("id", Integer, primary_key=True),
    _namespace_id(),
    Column("name", String(80), nullable=False),
    Column("json_schema", Text, nullable=False),
    *_times(),
    UniqueConstraint("namespace_id", "name", name="uq_metadef_properties_namespace_id_name"),
    Index("ix_metadef_properties_name", "name"),
    **_MYSQL,
)

metadef_resource_types = Table(
    "metadef_resource_types",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("protected", _CHECKED, nullable=False),
    *_times(),
    UniqueConstraint("name", name="uq_metadef_resource_types_name"),
    **_MYSQL,
)

metadef_namespace_resource_types = Table(
    "metadef_namespace_resource_types",
    metadata,
    Column("resource_type_id", Integer, primary_key=True),
    Column("namespace_id", Integer, primary_key=True),
    Column("properties_target", String(80)),
    Column("prefix", String(80)),
    *_times(),
    # In this order: MySQL numbers the names of foreign keys.
    ForeignKeyConstraint(["namespace_id"], ["metadef_namespaces.id"]),
    ForeignKeyConstraint(["resource_type_id"], ["metadef_resource_types.id"]),
    Index("ix_metadef_ns_res_types_namespace_id", "namespace_id"),
    **_MYSQL,
)

metadef_tags = Table(
    "metadef_tags",
    metadata,
    Column("id", Integer, primary_key=True),
    _namespace_id(),
    Column("name", String(80), nullable=False),
    *_times(),
    UniqueConstraint("namespace_id", "name", name="uq_metadef_tags_namespace_id_name"),
    Index("ix_metadef_tags_name", "name"),
    **_MYSQL,
)
