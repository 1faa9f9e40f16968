"""What tells about the service rather than about an image: versions, schemas, health."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from glimpse.api.wire import Reply, Request, json_reply
from glimpse.domain import metadef_schema, part_schemas
from glimpse.domain.schema import ImageSchema, Schema
from glimpse.errors import GlimpseError
from glimpse.settings import Settings

# Minor versions in the order in which the document lists them, by what is switched on (spec 1.1).
_ALWAYS_LAST = ["2.7", "2.6", "2.5", "2.4", "2.3", "2.2", "2.1", "2.0"]
_WITH_STORES = ["2.13", "2.12", "2.11", "2.10", "2.9", "2.8"]

ACCEPTED_ALWAYS = frozenset({"v2", *(f"v2.{minor}" for minor in (*range(8), 9, 15, 17))})
ACCEPTED_WITH_STORES = frozenset(f"v2.{minor}" for minor in (8, 10, 11, 12, 13))
ACCEPTED_WITH_CACHE = frozenset(f"v2.{minor}" for minor in (14, 16, 18))


# What is published below /v2/schemas, and since when.
SCHEMAS: Mapping[str, str] = {
    "image": "2.0", "images": "2.0", "member": "2.1", "members": "2.1", "task": "2.2", "tasks": "2.2",
    **{f"metadefs/{name}": "2.2" for name in metadef_schema.PUBLISHED},
}  # fmt: skip


def published(image: ImageSchema) -> Mapping[str, Schema]:
    """The schemas of one configuration, by their names in `SCHEMAS`."""
    return {
        "image": image.image,
        "images": image.images,
        "member": part_schemas.MEMBER,
        "members": part_schemas.MEMBERS,
        "task": part_schemas.TASK,
        "tasks": part_schemas.TASKS,
        **{f"metadefs/{name}": schema for name, schema in metadef_schema.PUBLISHED.items()},
    }


@dataclass(frozen=True)
class OperatorCalls:
    """Handlers that need no database."""

    settings: Settings
    schemas: Mapping[str, Schema]

    def versions(self, base: str, status: int) -> Reply:
        """The versions document; 300 when no version was chosen (any path outside /v2), else 200."""
        link = [{"rel": "self", "href": f"{self.settings.public_endpoint or base}/v2/"}]
        listed = [
            {"id": f"v{number}", "status": state, "links": link}
            for number, state in version_list(self.settings.multi_store, bool(self.settings.cache.directory))
        ]
        return json_reply({"versions": listed}, status)

    def accepted(self) -> frozenset[str]:
        """Version names that stand for the API as the first part of a path."""
        accepted = ACCEPTED_ALWAYS
        accepted |= ACCEPTED_WITH_STORES if self.settings.multi_store else frozenset()
        return accepted | (ACCEPTED_WITH_CACHE if bool(self.settings.cache.directory) else frozenset())

    def schema(self, name: str) -> Callable[[Request], Reply]:
        """GET /v2/schemas/{name}"""
        return lambda request: json_reply(self.schemas[name])

    def health(self, method: str) -> Reply:
        """GET /healthcheck: 200 OK (HEAD: 204), or 503 while the operator has taken the service out of the balancer."""
        if os.path.exists(self.settings.healthcheck_disable_file):
            return Reply(503, b"DISABLED BY FILE", "text/plain")
        return Reply(204, content_type="text/plain") if method == "HEAD" else Reply(200, b"OK", "text/plain")


def version_list(multi_store: bool, cache: bool) -> list[tuple[str, str]]:
    """(minor version, CURRENT or SUPPORTED) in the order of the document."""
    if cache:
        new = ["2.18", "2.17", "2.16", "2.15", "2.14", *(_WITH_STORES if multi_store else ["2.9"])]
        current = "2.18"
    else:
        new = ["2.15", *(_WITH_STORES if multi_store else ["2.9"]), "2.17"]
        current = "2.17"
    return [(number, "CURRENT" if number == current else "SUPPORTED") for number in new + _ALWAYS_LAST]


def unexpected() -> GlimpseError:
    """What a client learns of a failure that nobody foresaw: nothing but that it happened."""
    return GlimpseError("The server has either erred or is incapable of performing the requested operation.")
