"""What a client says when it asks for an import (API reference, Import an image)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from glimpse.domain.schema import UUID_PATTERN
from glimpse.errors import BadRequest

TEXT_MAX = 60_000  # bytes of a task's input that every database keeps
DEPTH_MAX = 100  # levels of JSON; Python's own encoder gives up somewhere below 1000

DIRECT, WEB, COPY, REMOTE = "glance-direct", "web-download", "copy-image", "glance-download"


@dataclass(frozen=True)
class ImportRequest:
    """A request that is complete as far as its text tells. `body` is what was sent.

    `stores` is None where none are named. `remote_id` names the image of another service in `region`, whose endpoint
    for `interface` has it.
    """

    method: str
    body: Mapping[str, Any]
    uri: str = ""
    region: str = ""
    remote_id: str = ""
    interface: str = "public"
    stores: tuple[str, ...] | None = None
    all_stores: bool = False
    must_succeed: bool = True

    @classmethod
    def parse(cls, body: Any, enabled: Collection[str]) -> ImportRequest:
        """What a client sent; `enabled` are the methods that it may choose from. Raises `BadRequest`."""
        if not isinstance(body, dict) or not isinstance(body.get("method"), dict):
            raise BadRequest('An import needs a method, such as {"method": {"name": "web-download", "uri": …}}.')
        method = body["method"]
        name = method.get("name")
        if not isinstance(name, str) or name not in enabled:
            raise BadRequest(f"Unknown import method name {str(name)[:64]!r}; enabled are {', '.join(enabled)}")
        for flag in ("all_stores", "all_stores_must_succeed"):
            if not isinstance(body.get(flag, True), bool):
                raise BadRequest(f"'{flag}' must be true or false.")
        stores = body.get("stores")
        if stores is not None and not (isinstance(stores, list) and all(isinstance(each, str) for each in stores)):
            raise BadRequest("'stores' must be a list of ids of stores.")
        check_extent(body)
        return cls.from_task(body)

    @classmethod
    def from_task(cls, body: Mapping[str, Any]) -> ImportRequest:
        """The same from the input of a task, which was parsed before."""
        method, stores = body["method"], body.get("stores")
        return cls(
            method=method["name"], body=body, uri=_text(method.get("uri")), region=_text(method.get("glance_region")),
            remote_id=_text(method.get("glance_image_id")),
            interface=_text(method.get("glance_service_interface")) or "public",
            stores=None if stores is None else tuple(dict.fromkeys(stores)),
            all_stores=body.get("all_stores", False), must_succeed=body.get("all_stores_must_succeed", True),
        )  # fmt: skip

    def check_remote(self) -> None:
        """Raise `BadRequest` where the image of another service is not named well."""
        if not self.region or not self.remote_id:
            raise BadRequest("glance-download needs glance_region and glance_image_id.")
        if not re.fullmatch(UUID_PATTERN, self.remote_id):
            raise BadRequest("The remote image id does not look like a UUID.")  # clients look for these words


def check_extent(value: Any) -> None:
    """Raise `BadRequest` for JSON that a task cannot keep as its input."""
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [part for each in level if isinstance(each, dict | list) for part in _parts(each)]
        if not level:
            break
    if level or len(json.dumps(value)) > TEXT_MAX:
        raise BadRequest(f"A task may be given {TEXT_MAX} bytes of JSON, and no more than {DEPTH_MAX} levels deep.")


def _parts(value: dict[str, Any] | list[Any]) -> Collection[Any]:
    return value.values() if isinstance(value, dict) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
