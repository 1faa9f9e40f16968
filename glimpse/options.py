"""Every option of the service itself: name, type, default, and the old names that configuration files still use.

Names, sections, types and defaults are those of Glance 2026.2 (configuration reference). `settings` reads them; the
options of a store driver are in the driver, those of libraries in the libraries.
"""

from __future__ import annotations

from oslo_config import cfg, types

_BIG = 2**63

DEFAULT_OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt("bind_host", help="Address to listen on; without it 0.0.0.0, or 127.0.0.1 without a flavor"),
    cfg.PortOpt("bind_port", default=9292, help="Port to listen on"),
    cfg.IntOpt("backlog", default=4096, min=1, help="Connections that may wait to be accepted"),
    cfg.IntOpt("workers", min=0, help="Worker processes; without it one per processor, and 0 counts as 1"),
    cfg.IntOpt("record_threads", default=3, min=1, max=64, help="Threads per worker for SQL, policy and JSON"),
    cfg.IntOpt("graceful_shutdown_timeout", default=60, min=0,
               help="Seconds that running transfers get to finish after SIGTERM or SIGHUP; 0 for no limit"),
    cfg.IntOpt("client_socket_timeout", default=900, min=0,
               help="Seconds without a byte from or to a client before it counts as gone; 0 for no limit"),
    cfg.BoolOpt("allow_unauthenticated_network", default=False,
                help="Let a service without a flavor, where everybody is admin, listen on more than loopback"),
    cfg.StrOpt("http_basic_auth_user_file", default="/etc/glance/htpasswd",
               help="For flavor http_basic: lines of user:bcrypt-hash[:project[:role,role]]"),
    cfg.StrOpt("public_endpoint", help="Base of the links in version documents; without it the request's own host"),
    cfg.IntOpt("limit_param_default", default=25, min=1),
    cfg.IntOpt("api_limit_max", default=1000, min=1),
    cfg.BoolOpt("allow_anonymous_access", default=False),
    cfg.IntOpt("max_request_id_length", default=64, min=0),
    cfg.IntOpt("image_property_quota", default=128),
    cfg.IntOpt("image_tag_quota", default=128),
    cfg.IntOpt("image_member_quota", default=128),
    cfg.IntOpt("image_location_quota", default=10),
    cfg.IntOpt("image_size_cap", default=2**40, min=1, max=_BIG),
    cfg.BoolOpt("delayed_delete", default=False),
    cfg.StrOpt("metadata_encryption_key", secret=True),
    cfg.StrOpt("property_protection_file"),
    cfg.StrOpt("property_protection_rule_format", default="roles", choices=["roles", "policies"]),
    cfg.BoolOpt("do_secure_hash", default=True),
    cfg.IntOpt("http_retries", default=3, min=0),
    cfg.StrOpt("default_publisher_id", default="image.localhost"),
    cfg.ListOpt("disabled_notifications", default=[], help="Events that are not told, or groups: image.member"),
    cfg.BoolOpt("use_keystone_limits", default=False),
    cfg.StrOpt("user_storage_quota", default="0"),
    cfg.BoolOpt("show_image_direct_url", default=False),
    cfg.BoolOpt("show_multiple_locations", default=False),
    cfg.StrOpt("hashing_algorithm", default="sha512"),
    cfg.ListOpt("enabled_import_methods", bounds=True, default=["glance-direct", "web-download", "copy-image"],
                item_type=types.String(choices=["glance-direct", "web-download", "copy-image", "glance-download"])),
    cfg.StrOpt("metadata_source_path", default="/etc/glance/metadefs/",
               help="Folder of metadata definitions for glance-manage; without it those that come with the service"),
    cfg.StrOpt("image_cache_dir"),
    cfg.StrOpt("image_cache_driver", default="centralized_db", choices=["centralized_db", "sqlite", "xattr"]),
    cfg.IntOpt("image_cache_max_size", default=10 * 2**30, min=0, help="Bytes; what is more is pruned"),
    cfg.IntOpt("image_cache_stall_time", default=86400, min=0,
               help="Seconds after which what was not cached to its end is removed"),
    cfg.IntOpt("scrub_time", default=0, min=0, help="Seconds that a deleted image is kept where delayed_delete is on"),
    cfg.IntOpt("scrub_pool_size", default=1, min=1, help="Images whose data is erased at once"),
    cfg.IntOpt("wakeup_time", default=300, min=1, help="Seconds between two looks for images to scrub"),
    cfg.StrOpt("node_staging_uri", default="file:///tmp/staging/",
               help="Directory for staged data; with enabled_backends [os_glance_staging_store] instead"),
    cfg.StrOpt("worker_self_reference_url", help="How other nodes reach this one; without it public_endpoint"),
    cfg.DictOpt("enabled_backends"),
]  # fmt: skip

DATABASE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("connection", secret=True, deprecated_opts=[
        cfg.DeprecatedOpt("sql_connection", group="DEFAULT"), cfg.DeprecatedOpt("sql_connection", group="database"),
        cfg.DeprecatedOpt("connection", group="sql")]),
    cfg.StrOpt("connection_parameters", default=""),
    cfg.IntOpt("max_pool_size", default=5, min=0),
    cfg.IntOpt("max_overflow", default=50, min=-1),
    cfg.IntOpt("pool_timeout", default=30, min=0),
    cfg.IntOpt("connection_recycle_time", default=3600, min=-1),
    cfg.IntOpt("max_retries", default=10, min=-1, help="Tries of a command to reach the database at its start"),
    cfg.IntOpt("retry_interval", default=10, min=0),
    cfg.StrOpt("mysql_sql_mode", default="TRADITIONAL"),
    cfg.IntOpt("mysql_wsrep_sync_wait"),
]  # fmt: skip

FORMAT_OPTS: list[cfg.Opt] = [
    cfg.ListOpt("container_formats", default=["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"],
                deprecated_opts=[cfg.DeprecatedOpt("container_formats", group="DEFAULT")]),
    cfg.ListOpt("disk_formats",
                default=["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"],
                deprecated_opts=[cfg.DeprecatedOpt("disk_formats", group="DEFAULT")]),
    cfg.BoolOpt("require_image_format_match", default=True),
    cfg.ListOpt("gpt_safety_checks_nonfatal", default=[]),
    cfg.ListOpt("vmdk_allowed_types", default=["streamOptimized", "monolithicSparse"]),
]  # fmt: skip

GLANCE_STORE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("default_backend"),
    cfg.StrOpt("default_store", default="file"),
    cfg.ListOpt("stores", default=["file", "http"]),
]

STORE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("store_description", default=""),
    cfg.IntOpt("weight", default=0),
]

REDIRECT_OPTS: list[cfg.Opt] = [
    cfg.BoolOpt("redirect_downloads", default=False,
                help="Send clients that ask for it (Prefer: redirect) to the store itself, by a pre-signed URL"),
]  # fmt: skip

FILTER_OPTS: list[cfg.Opt] = [
    cfg.ListOpt("allowed_schemes", item_type=types.String(quotes=True), bounds=True, default=["http", "https"]),
    cfg.ListOpt("disallowed_schemes", item_type=types.String(quotes=True), bounds=True, default=[]),
    cfg.ListOpt("allowed_hosts", item_type=types.HostAddress(), bounds=True, default=[]),
    cfg.ListOpt("disallowed_hosts", item_type=types.HostAddress(), bounds=True, default=[]),
    cfg.ListOpt("allowed_ports", item_type=types.Integer(min=1, max=65535), bounds=True, default=[80, 443]),
    cfg.ListOpt("disallowed_ports", item_type=types.Integer(min=1, max=65535), bounds=True, default=[]),
]

TASK_OPTS: list[cfg.Opt] = [
    cfg.IntOpt("task_time_to_live", default=48, help="Hours that a task is remembered after its end",
               deprecated_opts=[cfg.DeprecatedOpt("task_time_to_live", group="DEFAULT")]),
    cfg.StrOpt("work_dir", help="Directory for what tasks of type import make; without it that of staged data. With"
                                " enabled_backends [os_glance_tasks_store] instead"),
]  # fmt: skip

TASK_STORE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("filesystem_store_datadir", default="/var/lib/glance/os_glance_tasks_store"),
]

TASKFLOW_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("conversion_format", choices=["qcow2", "raw", "vmdk"],
               help="Format that tasks of type import convert to; without it images stay as they are"),
]  # fmt: skip

IMPORT_OPTS: list[cfg.Opt] = [
    cfg.ListOpt("image_import_plugins", item_type=types.String(quotes=True), bounds=True, default=[]),
]

CONVERSION_OPTS: list[cfg.Opt] = [cfg.StrOpt("output_format", default="raw", choices=["qcow2", "raw", "vmdk"])]

INJECTION_OPTS: list[cfg.Opt] = [
    cfg.DictOpt("inject", default={}),
    cfg.ListOpt("ignore_user_roles", default=["admin"]),
]

DOWNLOAD_OPTS: list[cfg.Opt] = [
    cfg.ListOpt("extra_properties", item_type=types.String(quotes=True), bounds=True,
                default=["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"]),
]  # fmt: skip

POOL_OPTS: list[cfg.Opt] = [
    cfg.IntOpt("task_pool_threads", default=16, min=1, help="Tasks that one worker works on at once"),
]

STAGING_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("filesystem_store_datadir", default="/var/lib/glance/os_glance_staging_store"),
    cfg.StrOpt("backend", help="Id of the store that keeps staged data for all nodes, instead of a directory of each"),
]

NOTIFICATION_OPTS: list[cfg.Opt] = [
    cfg.MultiStrOpt(
        "driver", default=[], help="Where events go: messagingv2, messaging, log, noop; without it nowhere"
    ),
]

HEALTHCHECK_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("disable_by_file_path", default="/etc/glance/healthcheck_disable"),
]
