"""Who is calling, as glance_store's drivers know it: their `context`, with the services of the caller's cloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import requests
from oslo_config import cfg

from glimpse.domain.context import Context
from glimpse.errors import Unavailable

KEYSTONE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Keystone:
    """Where the service's own section `[keystone_authtoken]` has Keystone; `url` is empty where it names none."""

    url: str
    verify: bool | str

    @classmethod
    def of(cls, conf: cfg.ConfigOpts) -> Keystone:
        """From a configuration that nobody else has declared that section in."""
        names = ("auth_url", "auth_uri", "www_authenticate_uri", "cafile")
        conf.register_opts([*map(cfg.StrOpt, names), cfg.BoolOpt("insecure", default=False)], "keystone_authtoken")
        section = conf.keystone_authtoken
        url = section.auth_url or section.www_authenticate_uri or section.auth_uri or ""
        return cls(url.rstrip("/").removesuffix("/v3"), (section.cafile or True) if not section.insecure else False)

    def catalogue(self, token: str) -> Sequence[Mapping[str, Any]]:
        """The services of the cloud as a token's owner sees them; blocks. Raises `Unavailable`."""
        try:
            answer = requests.get(
                f"{self.url}/v3/auth/catalog", headers={"X-Auth-Token": token}, verify=self.verify,
                timeout=KEYSTONE_SECONDS,
            )  # fmt: skip
            answer.raise_for_status()
            services: Sequence[Mapping[str, Any]] = answer.json()["catalog"]
        except (requests.RequestException, ValueError, KeyError) as error:
            raise Unavailable("Keystone does not say where the store is.") from error
        return services


class Caller:
    """The context of one call. Without a token there is no `service_catalog`, as nobody could be asked for it."""

    def __init__(self, keystone: Keystone, context: Context | None, owner: str | None) -> None:
        self._keystone = keystone
        self.user_id = (context and context.user_id) or ""
        # The project of the token, as only there it works; Glance writes the same to a volume's `image_owner`.
        self.project_id = (context and context.project_id) or owner or ""
        self.auth_token = context.token if context is not None else None

    @cached_property
    def service_catalog(self) -> list[Mapping[str, Any]] | None:
        """In the shape of Keystone's API v2, which drivers look into; asked for when a driver looks; blocks."""
        if not self.auth_token or not self._keystone.url:
            return None
        return [_as_v2(service) for service in self._keystone.catalogue(self.auth_token)]

    def to_dict(self) -> Mapping[str, str]:
        """What `cinder_endpoint_template` may name."""
        return {
            "tenant": self.project_id, "project_id": self.project_id, "user": self.user_id, "user_id": self.user_id,
        }  # fmt: skip


def _as_v2(service: Mapping[str, Any]) -> Mapping[str, Any]:
    regions: dict[str, dict[str, str]] = {}
    for endpoint in service.get("endpoints", ()):
        region = endpoint.get("region") or ""
        regions.setdefault(region, {"region": region})[f"{endpoint['interface']}URL"] = endpoint["url"]
    return {"type": service["type"], "name": service.get("name", ""), "endpoints": list(regions.values())}
