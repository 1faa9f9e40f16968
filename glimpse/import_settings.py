"""How images are imported, as the operator wants it: the sections that only imports and older tasks read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oslo_config import cfg

from glimpse.config_files import one_line, read, refuse
from glimpse.errors import SettingsError
from glimpse.options import (
    CONVERSION_OPTS,
    DOWNLOAD_OPTS,
    IMPORT_OPTS,
    INJECTION_OPTS,
    POOL_OPTS,
    STAGING_OPTS,
    TASK_OPTS,
    TASK_STORE_OPTS,
    TASKFLOW_OPTS,
)
from glimpse.store_settings import StoreSettings

PLUGINS = ("no_op", "inject_image_metadata", "image_conversion", "image_decompression")


@dataclass(frozen=True)
class ImportSettings:
    """How images are imported: `[image_import_opts]`, `[image_conversion]`, `[inject_metadata_properties]` and more.

    `plugins` are in the order in which they run. `staging_dir` is this node's directory for bytes on their way;
    `staging_store` the id of a store that keeps staged bytes for all nodes, "" where each node has its own.
    `self_url` is how other nodes reach this one, "" where there is only one. `at_once` tasks are worked on by one
    process. Properties of a remote image whose names begin with one of `remote_properties` come along.

    Of tasks of type import: `work_dir` is their directory, `conversion_format` what they convert to ("" for nothing),
    `ovf_properties` names the CIM properties that they take from a package (`ovf-metadata.json`).
    """

    plugins: tuple[str, ...]
    output_format: str
    inject: Mapping[str, str]
    inject_not_for: frozenset[str]
    remote_properties: tuple[str, ...]
    staging_dir: str
    staging_store: str
    self_url: str
    at_once: int
    work_dir: str
    conversion_format: str
    ovf_properties: tuple[str, ...]


def imports_from(conf: cfg.ConfigOpts, default: Mapping[str, Any], stores: Sequence[StoreSettings]) -> ImportSettings:
    """Check it all; `default` are the values of `[DEFAULT]`. Raises `SettingsError`."""
    plugins = read(conf, "image_import_opts", IMPORT_OPTS)["image_import_plugins"]
    for name in plugins:
        if name not in PLUGINS:
            raise refuse(
                conf, "image_import_opts", "image_import_plugins",
                f"{name!r} is not known; allowed: {', '.join(PLUGINS)}",
            )  # fmt: skip
    injection = read(conf, "inject_metadata_properties", INJECTION_OPTS)
    staging = read(conf, "os_glance_staging_store", STAGING_OPTS)
    backend = staging["backend"] or ""
    if backend and backend not in {store.id for store in stores if store.type != "http"}:
        raise refuse(
            conf, "os_glance_staging_store", "backend",
            f"{backend!r} is no store that can be written to; allowed: one of enabled_backends",
        )  # fmt: skip
    staging_dir = staging["filesystem_store_datadir"] if default["enabled_backends"] else _staging_dir(conf, default)
    tasks_dir = read(conf, "os_glance_tasks_store", TASK_STORE_OPTS)["filesystem_store_datadir"]
    return ImportSettings(
        plugins=tuple(plugins),
        output_format=read(conf, "image_conversion", CONVERSION_OPTS)["output_format"],
        inject={name: value for name, value in injection["inject"].items() if not name.startswith("os_glance")},
        inject_not_for=frozenset(role.lower() for role in injection["ignore_user_roles"]),
        remote_properties=tuple(read(conf, "glance_download_properties", DOWNLOAD_OPTS)["extra_properties"]),
        staging_dir=staging_dir,
        staging_store=backend,
        self_url=(default["worker_self_reference_url"] or default["public_endpoint"] or "").rstrip("/"),
        at_once=read(conf, "wsgi", POOL_OPTS)["task_pool_threads"],
        work_dir=tasks_dir if default["enabled_backends"] else read(conf, "task", TASK_OPTS)["work_dir"] or staging_dir,
        conversion_format=read(conf, "taskflow_executor", TASKFLOW_OPTS)["conversion_format"] or "",
        ovf_properties=_ovf_properties(conf),
    )


def _ovf_properties(conf: cfg.ConfigOpts) -> tuple[str, ...]:
    """The list `cim_pasd` in `ovf-metadata.json` of the configuration directories. None is fine."""
    path = conf.find_file("ovf-metadata.json")
    if path is None:
        return ()
    try:
        names = json.loads(Path(path).read_text(encoding="utf-8")).get("cim_pasd", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("cim_pasd must be a list of names")
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsError(f"{path}: names no CIM properties: {one_line(str(error))}") from error
    return tuple(names)


def _staging_dir(conf: cfg.ConfigOpts, default: Mapping[str, Any]) -> str:
    uri: str = default["node_staging_uri"]
    scheme, _, path = uri.partition("://")
    if scheme != "file" or not path.startswith("/"):
        raise refuse(conf, "DEFAULT", "node_staging_uri", f"{uri!r}; allowed: file:///a/directory")
    return path
