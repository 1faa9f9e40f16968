"""How much a project may have, as Keystone says (unified limits, Identity API v3), through oslo.limit.

The answer is never remembered: a limit that an operator changes holds from the next call on. What it costs is one
request to Keystone where a project has limits of its own for everything, else two.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from keystoneauth1 import exceptions as keystone_errors
from keystoneauth1 import loading
from oslo_config import cfg

from glimpse.errors import SettingsError, Unavailable

LOG = logging.getLogger(__name__)

SIZE_TOTAL = "image_size_total"  # MiB in the stores
STAGE_TOTAL = "image_stage_total"  # MiB on their way through staging
COUNT_TOTAL = "image_count_total"  # images
COUNT_UPLOADING = "image_count_uploading"  # images that are being uploaded or imported
RESOURCES = (SIZE_TOTAL, STAGE_TOTAL, COUNT_TOTAL, COUNT_UPLOADING)

SECTION = "oslo_limit"
TIMEOUT = 10  # seconds, where [oslo_limit] timeout is not set


class KeystoneLimits:
    """The limits registered for the image service in Keystone. Made before a fork; connects on first use."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Raises `SettingsError` when `[oslo_limit]` cannot be used."""
        # Here and not above, as it takes a second and most installations do without.
        from openstack import exceptions as sdk_errors
        from oslo_limit import exception as limit_errors
        from oslo_limit import limit, opts

        # The library reads a global configuration, which this service does not have.
        limit.CONF = opts.CONF = conf
        try:
            opts.register_opts(conf)
            # A Keystone that accepts connections and never answers would otherwise be waited for without end.
            conf.set_default("timeout", TIMEOUT, group=SECTION)
            auth = loading.load_auth_from_conf_options(conf, group=SECTION)
        except (cfg.Error, keystone_errors.ClientException) as error:
            raise SettingsError(f"[{SECTION}]: {' '.join(str(error).split())}") from error
        if auth is None:
            raise SettingsError(f"[{SECTION}] auth_type is not set; use_keystone_limits needs it, such as: password")
        section = conf[SECTION]
        if not (section.endpoint_id or section.endpoint_service_type or section.endpoint_service_name):
            raise SettingsError(f"[{SECTION}] endpoint_id is not set; `openstack endpoint list --service image` has it")
        self._make = limit.Enforcer
        self._errors = (
            keystone_errors.ClientException, sdk_errors.SDKException, limit_errors.SessionInitError, ValueError,
        )  # fmt: skip
        self._enforcer: Any = None

    def of(self, project: str | None) -> Mapping[str, int]:
        """The limit of each of `RESOURCES`, -1 for none; what nobody registered is 0. Without a project the defaults.

        Blocks. Raises `Unavailable` when Keystone does not answer or refuses.
        """
        try:
            enforcer = self._connected()
            own = dict(enforcer.get_project_limits(project, None)) if project else {}
            defaults = {} if own.keys() >= set(RESOURCES) else dict(enforcer.get_registered_limits(None))
        except self._errors as error:
            LOG.error("limits cannot be had from Keystone: %s", " ".join(str(error).split()) or type(error).__name__)
            raise Unavailable(
                "The limits of the project cannot be had from Keystone now; try again in a moment.",
                {"Retry-After": "5"},
            ) from error
        return {name: own.get(name, defaults.get(name, 0)) for name in RESOURCES}

    def _connected(self) -> Any:
        # Without a lock: it is no harm to connect twice, but it is to wait for a Keystone that hangs one by one.
        if self._enforcer is None:
            # It wants to be told how to count; counting is done in the database, see `quota`.
            self._enforcer = self._make(lambda project, names: dict.fromkeys(names, 0), cache=False)
        return self._enforcer
