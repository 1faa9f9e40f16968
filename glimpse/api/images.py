"""Image records on the wire: bodies and links (API reference, Images)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glimpse.api import parameters
from glimpse.api.image_list import ListParameters
from glimpse.api.wire import Reply, Request, json_reply, require_match
from glimpse.db.engine import Connection
from glimpse.db.image_query import ImageQuery
from glimpse.domain import patch
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import spelled
from glimpse.domain.locations import LocationRules
from glimpse.domain.record import Image, Location
from glimpse.domain.schema import HIDDEN_PROPERTIES
from glimpse.errors import UnsupportedMediaType
from glimpse.images.manage import Records
from glimpse.settings import Settings
from glimpse.stores.registry import Stores

_PATH = "/v2/images"


@dataclass(frozen=True)
class ImageCalls:
    """The handlers of /v2/images."""

    settings: Settings
    records: Records
    stores: Stores

    def create(self, request: Request) -> Reply:
        """POST /v2/images"""
        image = self.records.create(request.context, request.json())
        headers = {"Location": f"{request.base}/v2/images/{image.id}"}
        if self.settings.enabled_import_methods:
            headers["OpenStack-image-import-methods"] = ",".join(self.settings.enabled_import_methods)
        if self.stores.multi:
            headers["OpenStack-image-store-ids"] = ",".join(self.stores.ids)
        return json_reply(self.body(image), 201, headers)

    def show(self, request: Request) -> Reply:
        """GET /v2/images/{image_id}"""
        return json_reply(self.body(self.records.show(request.context, request.parts["image_id"])))

    def list(self, request: Request) -> Reply:
        """GET /v2/images"""
        found, more = self.records.find(request.context, self._query(request))
        document: dict[str, Any] = {
            "images": [self.body(image) for image in found],
            "first": parameters.page_link(_PATH, request.query),
            "schema": "/v2/schemas/images",
        }
        if more and found:
            document["next"] = parameters.page_link(_PATH, request.query, found[-1].id)
        return json_reply(document)

    def update(self, request: Request, rules: LocationRules | None) -> tuple[Reply, Sequence[Location]]:
        """PATCH /v2/images/{image_id}, with the locations that the image lost by it."""
        media = request.media_type()
        if media not in (patch.MEDIA_V20, patch.MEDIA_V21):
            accepted = f"{patch.MEDIA_V20}, {patch.MEDIA_V21}"
            raise UnsupportedMediaType(f"Content-Type must be one of {accepted}", {"Accept-Patch": accepted})
        changes = patch.parse(media, request.json(), self.records.schema)
        image, lost = self.records.change(
            request.context, request.parts["image_id"], changes, self.precondition(request), rules
        )
        return json_reply(self.body(image)), lost

    def changed(self, request: Request) -> set[str]:
        """What a PATCH that was accepted has changed."""
        changes = patch.parse(request.media_type(), request.json(), self.records.schema)
        return {change.name for change in changes}

    def precondition(self, request: Request) -> Callable[[Image], None]:
        """Holds If-Match against the image as this caller reads it."""
        return lambda image: require_match(request.headers.get("If-Match"), lambda: json_reply(self.body(image)).body)

    def body(self, image: Image) -> dict[str, Any]:
        """An image as clients get it (spec 1.2.1)."""
        link = f"/v2/images/{image.id}"
        document: dict[str, Any] = {
            name: value or "" for name, value in image.properties.items() if name not in HIDDEN_PROPERTIES
        }
        document |= {
            "id": image.id,
            "name": image.name,
            "status": image.status,
            "visibility": image.visibility,
            "protected": image.protected,
            "os_hidden": image.os_hidden,
            "checksum": image.checksum,
            "os_hash_algo": image.os_hash_algo,
            "os_hash_value": image.os_hash_value,
            "owner": image.owner,
            "size": image.size,
            "virtual_size": image.virtual_size,
            "container_format": image.container_format,
            "disk_format": image.disk_format,
            "created_at": spelled(image.created_at),
            "updated_at": spelled(image.updated_at),
            "tags": image.tags,
            "min_ram": image.min_ram,
            "min_disk": image.min_disk,
            "self": link,
            "file": f"{link}/file",
            "schema": "/v2/schemas/image",
        }
        if image.locations or self.settings.show_multiple_locations:
            document |= self._places(image)
        return document

    def _places(self, image: Image) -> dict[str, Any]:
        places: dict[str, Any] = {}
        locations = self.stores.by_weight(image.locations)
        if self.settings.show_multiple_locations:
            places["locations"] = [self.location(each) for each in locations]
        if self.settings.show_image_direct_url and locations:
            places["direct_url"] = locations[0].shown
        if self.stores.multi and locations:
            ids = [store.id for each in locations if (store := self.stores.holding(each)) is not None]
            places |= {"stores": ",".join(ids)} if ids else {}
        return places

    def location(self, location: Location) -> dict[str, Any]:
        """A location as clients get it: with the store that holds it, where there are several."""
        store = self.stores.holding(location) if self.stores.multi else None
        return {"url": location.shown, "metadata": {**location.metadata, **({"store": store.id} if store else {})}}

    def _query(self, request: Request) -> Callable[[Connection], ImageQuery]:
        """The query, parsed at once; its marker is looked up when there is a connection."""
        parsed = ListParameters(request.query, self.settings)
        context: Context = request.context

        def complete(connection: Connection) -> ImageQuery:
            marker = self.records.marker(connection, context, parsed.marker) if parsed.marker is not None else None
            return parsed.query(marker)

        return complete
