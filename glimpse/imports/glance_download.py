"""Images of the same cloud's other regions, fetched with their owner's own token (spec 1.3.4, 2.3).

Where a region's Image service is, the catalogue of that token says. It is asked through the guarded client, as the
catalogue may lead where this service is not to go; a redirect to another server does not get the token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from glimpse.access.auth import Catalogue
from glimpse.domain.schema import READ_ONLY, RESERVED, base_properties, is_reserved, is_storable
from glimpse.errors import BadRequest, Conflict, NotFound, Unavailable
from glimpse.settings import FormatSettings
from glimpse.stores.driver import Reader
from glimpse.stores.web import WebClient

LONGEST_RECORD = 4 << 20  # bytes of an image's JSON
LONGEST_NAME = 255  # characters of a property's name
# Whatever an operator's list of prefixes begins with, these are no extra properties.
_OUR_OWN = READ_ONLY | RESERVED | base_properties((), ()).keys()


@dataclass(frozen=True)
class RemoteImage:
    """What comes along with the bytes of a remote image; `size` in bytes."""

    disk_format: str
    container_format: str
    properties: Mapping[str, str]
    size: int


@dataclass(frozen=True)
class RemoteGlance:
    """One image in another region, as its owner may see it."""

    web: WebClient
    endpoint: str
    image_id: str
    token: str = field(repr=False)

    async def describe(self, formats: FormatSettings, prefixes: Collection[str]) -> RemoteImage:
        """Read its record; the properties are those that begin with one of `prefixes`.

        Raises `NotFound`, `Conflict` (it is not active), `BadRequest` (a format that is not allowed here),
        `Unavailable`.
        """
        try:
            body = await self.web.document(self._url, self._headers, limit=LONGEST_RECORD)
        except NotFound as error:
            raise NotFound("The other region has no such image.") from error
        try:
            record = orjson.loads(body)
            status, size = str(record["status"]), record["size"]
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable("The other region does not answer as an Image service.") from error
        if status != "active":
            raise Conflict(f"The image of the other region is {status[:32]}; only an active one can be imported.")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Unavailable("The other region does not say how large its image is.")
        return RemoteImage(
            disk_format=_allowed(record, "disk_format", formats.disk_formats),
            container_format=_allowed(record, "container_format", formats.container_formats),
            properties=_chosen(record, prefixes),
            size=size,
        )

    async def open(self) -> Reader:
        """Its bytes. Raises `NotFound`, `Unavailable`."""
        return await self.web.open(f"{self._url}/file", self._headers)

    @property
    def _url(self) -> str:
        return f"{self.endpoint}/v2/images/{self.image_id}"

    @property
    def _headers(self) -> dict[str, str]:
        return {"X-Auth-Token": self.token}


def endpoint_of(catalogue: Catalogue, region: str, interface: str) -> str:
    """The URL of a region's Image service, without a version and a slash at its end. Raises `NotFound`."""
    for service in catalogue:
        if service.get("type") != "image":
            continue
        for endpoint in service.get("endpoints", ()):
            named = str(endpoint.get("region_id") or endpoint.get("region") or "")
            if endpoint.get("interface") == interface and named.lower() == region.lower():
                return str(endpoint.get("url", "")).rstrip("/").removesuffix("/v2")
    raise NotFound(f"The catalogue has no Image service in region {region[:64]!r} for interface {interface[:16]!r}.")


def _allowed(record: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    value = record.get(name)
    if value not in known:
        raise BadRequest(f"The {name} of the other region's image, {str(value)[:32]!r}, is not allowed here.")
    return str(value)


def _chosen(record: Mapping[str, Any], prefixes: Collection[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in record.items()
        if name.startswith(tuple(prefixes))
        and not is_reserved(name)
        and name not in _OUR_OWN
        and len(name) <= LONGEST_NAME
        and isinstance(value, str)
        and is_storable(name + value)
    }
