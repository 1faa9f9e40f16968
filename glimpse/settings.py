"""Every option, read once: `load()` turns configuration files into a frozen `Settings`.

Names, sections, types and defaults are those of Glance 2026.2 (configuration reference), so that an operator's
`glance-api.conf` works as it is; options that nothing here reads are ignored. What Glance dropped with its own HTTP
server (`bind_host`, `workers`, …) is back, because Glimpse has one. A value that cannot be used raises `SettingsError`
with one line: file, section, option, what is allowed.

Options of a store driver are declared by the driver and read with `Settings.group`; options of libraries
(`[keystone_authtoken]`, `[oslo_policy]`, `[oslo_limit]`, `[key_manager]`) by the libraries, from `Settings.conf`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonschema_rs
from oslo_config import cfg

from glimpse.cache_settings import CacheSettings, cache_from, without_cache
from glimpse.config_files import files_of, is_default, one_line, parse, read, refuse
from glimpse.errors import SettingsError
from glimpse.import_settings import ImportSettings, imports_from
from glimpse.options import (
    DATABASE_OPTS,
    DEFAULT_OPTS,
    FILTER_OPTS,
    FORMAT_OPTS,
    HEALTHCHECK_OPTS,
    NOTIFICATION_OPTS,
    TASK_OPTS,
)
from glimpse.store_settings import StoreSettings, stores_from

FLAVORS = ("", "keystone", "http_basic")


def _hash_name(value: str) -> str:
    if value not in hashlib.algorithms_available or value.startswith("shake_"):
        raise ValueError(f"Should be a hash that Python's hashlib knows, such as sha512, not {value!r}")
    return value


@dataclass(frozen=True)
class DatabaseSettings:
    """`[database]`, with the URL as SQLAlchemy wants it. Times in seconds.

    With a `location_key` the URLs of locations are encrypted.
    """

    url: str
    max_pool_size: int
    max_overflow: int
    pool_timeout: int
    recycle: int
    max_retries: int
    retry_interval: int
    mysql_sql_mode: str
    mysql_wsrep_sync_wait: int | None
    location_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class FormatSettings:
    """`[image_format]`: what the API accepts, and how strictly content is held against it."""

    container_formats: tuple[str, ...]
    disk_formats: tuple[str, ...]
    require_match: bool
    gpt_checks_nonfatal: frozenset[str]
    vmdk_types: frozenset[str]


@dataclass(frozen=True)
class ImageSchemaSettings:
    """`schema-image.json`: properties that the operator describes, and those that every new image must have."""

    properties: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...]


@dataclass(frozen=True)
class FilterSettings:
    """`[import_filtering_opts]`: where on the web callers may send the service. An allowing list comes first."""

    allowed_schemes: tuple[str, ...]
    disallowed_schemes: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    disallowed_hosts: tuple[str, ...]
    allowed_ports: tuple[int, ...]
    disallowed_ports: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """The whole configuration as the service uses it. Sizes in bytes, times in seconds."""

    conf: cfg.ConfigOpts
    bind_host: str
    bind_port: int
    backlog: int
    workers: int
    record_threads: int
    graceful_shutdown_timeout: int
    client_socket_timeout: int
    flavor: str
    allow_unauthenticated_network: bool
    http_basic_auth_user_file: str
    public_endpoint: str
    limit_param_default: int
    api_limit_max: int
    allow_anonymous_access: bool
    max_request_id_length: int
    image_property_quota: int
    image_tag_quota: int
    image_member_quota: int
    image_location_quota: int
    image_size_cap: int
    delayed_delete: bool
    show_image_direct_url: bool
    show_multiple_locations: bool
    hashing_algorithm: str
    do_secure_hash: bool
    http_retries: int
    task_time_to_live: int
    default_publisher_id: str
    disabled_notifications: tuple[str, ...]
    notification_drivers: tuple[str, ...]
    property_protection_file: str | None
    property_protection_rule_format: str
    enabled_import_methods: tuple[str, ...]
    imports: ImportSettings
    cache: CacheSettings
    scrub_time: int
    scrub_pool_size: int
    wakeup_time: int
    database: DatabaseSettings
    formats: FormatSettings
    uri_filter: FilterSettings
    image_schema: ImageSchemaSettings
    stores: tuple[StoreSettings, ...]
    default_store: str
    multi_store: bool
    healthcheck_disable_file: str
    trust_proxy_headers: bool
    use_keystone_limits: bool
    user_storage_quota: int

    def group(self, name: str, opts: Sequence[cfg.Opt], fallback: str | None = None) -> Mapping[str, Any]:
        """Read a section whose options somebody else declares (a store driver).

        An option that `name` does not set is taken from the section `fallback`. Raises `SettingsError`.
        """
        values = read(self.conf, name, opts)
        if fallback is not None:
            shared = read(self.conf, fallback, opts)
            for opt in opts:
                if is_default(self.conf, name, opt.dest):
                    values[opt.dest] = shared[opt.dest]
        return values

    def keystone_url(self) -> str:
        """Where Keystone is, as `[keystone_authtoken]` or the section that it refers to says; else ""."""
        conf, names = self.for_library(), ("auth_url", "www_authenticate_uri", "auth_uri")
        reference = read(conf, "keystone_authtoken", [cfg.StrOpt("auth_section")])["auth_section"]
        for section in dict.fromkeys((reference or "keystone_authtoken", "keystone_authtoken")):
            values = read(conf, section, [cfg.StrOpt(name) for name in names])
            if found := next((values[name] for name in names if values[name]), ""):
                return str(found)
        return ""

    def for_library(self) -> cfg.ConfigOpts:
        """The same files, read once more, for a library that declares an option which is declared here too."""
        conf = cfg.ConfigOpts()
        conf([], project="glance", default_config_files=self.conf.config_file, default_config_dirs=self.conf.config_dir)
        return conf


def load(argv: Sequence[str], prog: str = "glance-api", extra_cli: Sequence[cfg.Opt] = ()) -> Settings:
    """Read the files that `argv` names (`--config-file`, `--config-dir`), or those of /etc/glance.

    `$OS_GLANCE_CONFIG_DIR` replaces /etc/glance, as for Glance's WSGI application. Raises `SettingsError`.
    """
    return settings_from(parse(argv, prog, extra_cli))


_AS_THEY_ARE = (
    "bind_port", "backlog", "record_threads", "graceful_shutdown_timeout", "client_socket_timeout",
    "allow_unauthenticated_network", "http_basic_auth_user_file", "limit_param_default", "api_limit_max",
    "allow_anonymous_access", "delayed_delete", "max_request_id_length", "image_property_quota", "image_tag_quota",
    "image_member_quota", "image_location_quota", "image_size_cap", "show_image_direct_url", "show_multiple_locations",
    "do_secure_hash", "use_keystone_limits", "http_retries", "default_publisher_id", "property_protection_file",
    "property_protection_rule_format", "scrub_time", "scrub_pool_size", "wakeup_time",
)  # fmt: skip


def settings_from(conf: cfg.ConfigOpts) -> Settings:
    """Check every option and freeze the result. Raises `SettingsError`."""
    default = read(conf, "DEFAULT", DEFAULT_OPTS)
    paste = read(conf, "paste_deploy", [cfg.StrOpt("flavor", default="")])
    health = read(conf, "healthcheck", HEALTHCHECK_OPTS)
    proxy = read(conf, "oslo_middleware", [cfg.BoolOpt("enable_proxy_headers_parsing", default=False)])
    events = read(conf, "oslo_messaging_notifications", NOTIFICATION_OPTS)
    flavor = _flavor(conf, paste["flavor"] or "")
    host = _bind_host(conf, flavor, default)
    stores, default_store = stores_from(conf, default["enabled_backends"])
    try:
        algorithm = _hash_name(default["hashing_algorithm"])
    except ValueError as error:
        raise refuse(conf, "DEFAULT", "hashing_algorithm", str(error)) from error
    return Settings(
        conf=conf,
        bind_host=host,
        workers=len(os.sched_getaffinity(0)) if default["workers"] is None else max(1, default["workers"]),
        flavor=flavor,
        public_endpoint=(default["public_endpoint"] or "").rstrip("/"),
        hashing_algorithm=algorithm,
        enabled_import_methods=tuple(default["enabled_import_methods"]),
        disabled_notifications=tuple(default["disabled_notifications"]),
        notification_drivers=tuple(events["driver"]),
        imports=imports_from(conf, default, stores),
        cache=cache_from(conf, default, paste["flavor"] or ""),
        database=replace(database_settings(conf), location_key=_location_key(conf, default)),
        formats=_formats(conf),
        uri_filter=_uri_filter(conf),
        image_schema=_image_schema(conf),
        stores=stores,
        default_store=default_store,
        multi_store=bool(default["enabled_backends"]),
        task_time_to_live=read(conf, "task", TASK_OPTS)["task_time_to_live"],
        healthcheck_disable_file=health["disable_by_file_path"],
        trust_proxy_headers=proxy["enable_proxy_headers_parsing"],
        user_storage_quota=_storage_quota(conf, default["user_storage_quota"]),
        **{name: default[name] for name in _AS_THEY_ARE},
    )


def _location_key(conf: cfg.ConfigOpts, default: Mapping[str, Any]) -> str:
    key: str = default["metadata_encryption_key"] or ""
    if key and len(key.encode()) not in (16, 24, 32):
        raise refuse(conf, "DEFAULT", "metadata_encryption_key", "has a wrong length; allowed: 16, 24 or 32 characters")
    return key


_UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def _storage_quota(conf: cfg.ConfigOpts, text: str) -> int:
    """`user_storage_quota` in bytes, 0 for none."""
    found = re.fullmatch(r"([0-9]+)([KMGT]?B)?", text)
    if found is None:
        raise refuse(
            conf, "DEFAULT", "user_storage_quota",
            f"{text!r} is no size; allowed: a whole number, with B, KB, MB, GB or TB behind it or nothing (bytes)",
        )  # fmt: skip
    return int(found[1]) * _UNITS[found[2] or ""]


def database_settings(conf: cfg.ConfigOpts) -> DatabaseSettings:
    """`[database]` alone, for commands that need no more. Raises `SettingsError`."""
    values = read(conf, "database", DATABASE_OPTS)
    return DatabaseSettings(
        url=_database_url(conf, values["connection"], values["connection_parameters"]),
        max_pool_size=values["max_pool_size"],
        max_overflow=values["max_overflow"],
        pool_timeout=values["pool_timeout"],
        recycle=values["connection_recycle_time"],
        max_retries=values["max_retries"],
        retry_interval=values["retry_interval"],
        mysql_sql_mode=values["mysql_sql_mode"],
        mysql_wsrep_sync_wait=values["mysql_wsrep_sync_wait"],
    )


def metadata_source_path(conf: cfg.ConfigOpts) -> str:
    """Where `glance-manage` looks for files of metadata definitions. Raises `SettingsError`."""
    path: str = read(conf, "DEFAULT", DEFAULT_OPTS)["metadata_source_path"]
    return path


def is_loopback(host: str) -> bool:
    """Whether a service that listens on `host` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# The drivers that operators' URLs name, and the ones that are installed here.
_DRIVERS = {
    "mysql": "mysql+pymysql",
    "mysql+mysqldb": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg2": "postgresql+psycopg",
}


def _database_url(conf: cfg.ConfigOpts, url: str | None, parameters: str) -> str:
    if not url:
        raise SettingsError(
            f"{files_of(conf)}: [database] connection is not set; give it a URL such as"
            " mysql+pymysql://glance:PASSWORD@controller/glance, postgresql://… or sqlite:////var/lib/glance/db.sqlite"
        )
    scheme, sep, rest = url.partition("://")
    scheme = _DRIVERS.get(scheme, scheme)
    if not sep or scheme not in ("mysql+pymysql", "postgresql+psycopg", "sqlite"):
        # The value itself is not repeated: it holds a password.
        raise refuse(conf, "database", "connection", "Should be a mysql, postgresql or sqlite URL")
    if parameters:
        rest += ("&" if "?" in rest else "?") + parameters
    return f"{scheme}://{rest}"


def _flavor(conf: cfg.ConfigOpts, flavor: str) -> str:
    identity = without_cache(flavor)
    if identity not in FLAVORS:
        allowed = "keystone, http_basic, or nothing for no authentication"
        raise refuse(conf, "paste_deploy", "flavor", f"{flavor!r} is not known; allowed: {allowed}")
    return identity


def _bind_host(conf: cfg.ConfigOpts, flavor: str, default: Mapping[str, Any]) -> str:
    host: str = default["bind_host"] or ("0.0.0.0" if flavor else "127.0.0.1")  # noqa: S104 - Glance's default
    if not flavor and not is_loopback(host) and not default["allow_unauthenticated_network"]:
        raise refuse(
            conf, "DEFAULT", "bind_host",
            f"{host} would make everybody on the network an admin, as [paste_deploy] flavor is not set; allowed: a"
            " loopback address, or set a flavor, or allow_unauthenticated_network = true",
        )  # fmt: skip
    return host


def _formats(conf: cfg.ConfigOpts) -> FormatSettings:
    values = read(conf, "image_format", FORMAT_OPTS)
    return FormatSettings(
        container_formats=tuple(values["container_formats"]),
        disk_formats=tuple(values["disk_formats"]),
        require_match=values["require_image_format_match"],
        gpt_checks_nonfatal=frozenset(values["gpt_safety_checks_nonfatal"]),
        vmdk_types=frozenset(values["vmdk_allowed_types"]),
    )


def _image_schema(conf: cfg.ConfigOpts) -> ImageSchemaSettings:
    """The operator's `schema-image.json` from the configuration directories: a map of properties, or one with
    `properties` and `required`. None is fine.
    """
    path = conf.find_file("schema-image.json")
    if path is None:
        return ImageSchemaSettings({}, ())
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        extended = isinstance(document.get("properties"), dict) and "type" not in document["properties"]
        properties = document["properties"] if extended else document
        required = tuple(document.get("required", ())) if extended else ()
        jsonschema_rs.Draft7Validator({"properties": properties, "required": list(required)})
    except (OSError, ValueError, AttributeError, TypeError, jsonschema_rs.ValidationError) as error:
        raise SettingsError(f"{path}: is not a map of JSON Schemas by property name: {one_line(str(error))}") from error
    return ImageSchemaSettings(properties, required)


def _uri_filter(conf: cfg.ConfigOpts) -> FilterSettings:
    values = read(conf, "import_filtering_opts", FILTER_OPTS)
    return FilterSettings(**{name: tuple(value) for name, value in values.items()})


def url_without_password(url: str) -> str:
    """A database or store URL that may be written to a log."""
    scheme, separator, rest = url.partition("://")
    # From the right: a password may hold anything, a colon, a slash or an @ among it.
    userinfo, at, place = rest.partition("?")[0].rpartition("@")
    user = f"{userinfo.partition(':')[0]}:***" if at else ""
    return f"{scheme}{separator}{user}{at}{place}"
