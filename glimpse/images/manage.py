"""Records of images while a caller waits: create, show, list, change, tag, switch off and on, delete.

Plain functions of the database; each runs in a record thread and finishes in one transaction or one read.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from glimpse.access.policy import Policy, image_target, require_owner
from glimpse.access.protection import Protection
from glimpse.access.quota import Account, Quotas
from glimpse.db import image_query, images
from glimpse.db.engine import Connection, Database
from glimpse.db.image_query import ImageQuery
from glimpse.domain import lifecycle, patch
from glimpse.domain.context import Context
from glimpse.domain.locations import LocationRules
from glimpse.domain.record import Image, Location
from glimpse.domain.schema import HIDDEN_PROPERTIES, READ_ONLY, RESERVED, RESERVED_PREFIX, ImageSchema, is_reserved
from glimpse.errors import BadRequest, Forbidden, NotFound, TooLarge
from glimpse.notifications import Notifications, gone
from glimpse.settings import Settings
from glimpse.stores.registry import Stores

# What a client may not even mention when it creates an image; `id` is the exception among the read-only ones. As with
# Glance, links are refused before the body is held against the schema, the others after it.
_LINKS = frozenset({"direct_url", "self", "file", "schema", "stores"})
_NOT_AT_CREATE = (READ_ONLY | RESERVED | {"locations"}) - {"id"}
# Gets the image as the caller sees it, and raises `PreconditionFailed` when the caller knows another version.
Precondition = Callable[[Image], None]


def _any(image: Image) -> None:
    """No version is wanted."""


_VISIBILITY_RULES = {"public": "publicize_image", "community": "communitize_image"}


@dataclass(frozen=True)
class Records:
    """The calls on image records, with what they need."""

    settings: Settings
    database: Database
    policy: Policy
    schema: ImageSchema
    protection: Protection
    stores: Stores
    notifications: Notifications
    quotas: Quotas

    def create(self, context: Context, body: Any) -> Image:
        """Register an image without data (API reference, Create image).

        Raises `BadRequest`, `Forbidden`, `Duplicate` (id taken), `TooLarge` (a quota), `Unavailable`.
        """
        image = self.described(context, body)
        account = self.quotas.account(image.owner)

        def work(connection: Connection) -> None:
            account.take_turn(connection)
            account.admit_image(connection)
            images.insert(connection, image)

        self.quotas.write(work)
        self.notifications.tell("image.create", image)
        return self._as_seen(image, context)

    def described(self, context: Context, body: Any) -> Image:
        """The image that a body describes, if this caller may have it; it is not there yet.

        Raises `BadRequest`, `Forbidden`, `TooLarge` (of parts of the image).
        """
        if isinstance(body, dict):
            _refuse(_LINKS & body.keys(), "read-only")
        body = self.schema.validate(body)
        _refuse([name for name in body if name in _NOT_AT_CREATE or is_reserved(name)], "reserved")
        image = _from_body(body, context)
        self._check_properties(image, None)
        for name in image.properties:
            self.protection.require("create", name, context)
        target = {**image.properties, "owner": image.owner, "project_id": image.owner, "visibility": image.visibility}
        self.policy.require("add_image", context, target)
        if rule := _VISIBILITY_RULES.get(image.visibility):
            self.policy.require(rule, context, target)
        return image

    def show(self, context: Context, image_id: str) -> Image:
        """One image as the caller may see it. Raises `NotFound`."""
        image = self.database.read(lambda connection: images.get(connection, image_id, context))
        self.policy.require_for_image("get_image", context, image)
        return self._as_seen(image, context)

    def find(self, context: Context, query: Callable[[Connection], ImageQuery]) -> tuple[list[Image], bool]:
        """A page of images, and whether another one may follow.

        `query` gets a connection to look up its marker with. Raises `BadRequest`, `Forbidden`.
        """
        self.policy.require("get_images", context, {"project_id": context.project_id, "owner": context.project_id})

        def page(connection: Connection) -> tuple[list[Image], int]:
            asked = query(connection)
            if any(not self._may_filter_by(name, context) for name in asked.properties):
                return [], asked.limit
            return image_query.find(connection, asked, context), asked.limit

        found, limit = self.database.read(page)
        # MariaDB finds the images of projects whose names differ by case or accents too.
        seen = [
            image
            for image in found
            if images.is_visible(image, context) and self.policy.allows("get_image", context, image_target(image))
        ]
        return [self._as_seen(image, context) for image in seen], len(found) == limit

    def _may_filter_by(self, name: str, context: Context) -> bool:
        """Else lists would tell, guess by guess, the value of a property that the caller may not read."""
        return name not in HIDDEN_PROPERTIES and self.protection.allows("read", name, context)

    def marker(self, connection: Connection, context: Context, image_id: str) -> Image:
        """The image behind which a page goes on. Raises `BadRequest` (unknown), `Forbidden` (not for the caller)."""
        try:
            return images.get(connection, image_id, context)
        except NotFound:
            pass
        try:
            images.get(connection, image_id, Context(is_admin=True))
        except NotFound as error:
            raise BadRequest(f"Invalid marker {image_id[:64]!r}: no such image.") from error
        raise Forbidden("The image that the marker names is not visible to you.")

    def change(
        self,
        context: Context,
        image_id: str,
        changes: list[patch.Change],
        precondition: Precondition,
        rules: LocationRules | None,
    ) -> tuple[Image, list[Location]]:
        """Apply a JSON patch, all of it or nothing (API reference, Update image): the image, and what it lost.

        The row is locked from the read to the write, so two changes at once never lose one. `precondition` gets the
        image as it is before. Locations come in the order in which clients see them. Raises what `precondition` raises,
        `NotFound`, `BadRequest`, `Forbidden`, `Conflict`, `TooLarge`, and `Unmeasured` for locations that `rules` know
        nothing of.
        """

        account = self._account_of_locations(context, image_id, changes)

        def work(connection: Connection) -> tuple[Image, list[Location]]:
            account.take_turn(connection)
            before = images.get(connection, image_id, context, lock=True)
            self.policy.require_for_image("get_image", context, before)
            if not changes:
                return before, []
            for rule in dict.fromkeys(_rule_for(change) for change in changes):
                self.policy.require_for_image(rule, context, before)
            require_owner(context, before)
            seen = self.protection.readable(before, context)
            precondition(self._as_seen(before, context))
            seen = seen.with_(locations=tuple(self.stores.by_weight(seen.locations)))
            after = patch.apply(seen, changes, context.is_admin, rules)
            self.protection.require_changes(changes, seen, context)
            if seen.properties != before.properties:
                # What the caller may not read stays, unless it was just replaced.
                hidden = {name: value for name, value in before.properties.items() if name not in seen.properties}
                after = after.with_(properties={**hidden, **after.properties})
            self._check_visibility(context, changes, after)
            self._check_properties(after, before)
            if len(after.locations) > len(before.locations):
                account.admit_bytes(connection, image_id, (after.size or 0) * len(after.locations))
            after = after.with_(updated_at=lifecycle.now())
            images.update(connection, before, after)
            kept = {location.id for location in after.locations}
            return after, [location for location in before.locations if location.id not in kept]

        after, lost = self.quotas.write(work)
        if changes:
            self.notifications.tell("image.update", after)
        return self._as_seen(after, context), lost

    def _account_of_locations(self, context: Context, image_id: str, changes: list[patch.Change]) -> Account:
        """What the change may use up, as every location counts with the size of its image."""
        if not self.quotas.on or all(change.name != "locations" for change in changes):
            return Account(None)
        image = self.database.read(lambda connection: images.get(connection, image_id, context))
        return self.quotas.storage_account(image.owner)

    def _as_seen(self, image: Image, context: Context) -> Image:
        """Without what the caller may not read; locations of a deactivated image are for admins only."""
        if image.status == "deactivated" and not context.is_admin:
            image = image.with_(locations=())
        return self.protection.readable(image, context)

    def _check_visibility(self, context: Context, changes: list[patch.Change], after: Image) -> None:
        if any(change.name == "visibility" for change in changes):
            rule = _VISIBILITY_RULES.get(after.visibility)
            if rule is not None:
                self.policy.require_for_image(rule, context, after)

    def deletable(self, context: Context, image_id: str, precondition: Precondition = _any) -> Image:
        """The image, which this caller may delete now. Raises as `delete`."""
        return self.database.read(lambda c: self._deletable(images.get(c, image_id, context), context, precondition))

    def _deletable(self, image: Image, context: Context, precondition: Precondition) -> Image:
        self.policy.require_for_image("delete_image", context, image)
        require_owner(context, image)
        precondition(self._as_seen(image, context))
        if image.protected:
            raise Forbidden(f"Image {image.id} is protected: set protected to false before you delete it.")
        return image

    def delete(self, context: Context, image_id: str, precondition: Precondition = _any) -> Image:
        """Take the record away; its bytes are the caller's next step (`data.ImageData.erase_image`).

        Raises what `precondition` raises, `NotFound`, `Forbidden` (policy, owner, protected), `Conflict`.
        """

        def work(connection: Connection) -> Image:
            found = images.get(connection, image_id, context, lock=True)
            image = self._deletable(found, context, precondition)
            # With delayed_delete the bytes are the scrubber's: nothing is left here to erase. What was never active
            # has nothing worth keeping, and must not become active by being restored.
            kept = image.status in ("active", "deactivated") and bool(image.locations)
            later = self.settings.delayed_delete and kept
            status, now = "pending_delete" if later else "deleted", lifecycle.now()
            if later and image.status == "deactivated":
                images.set_property(connection, image_id, lifecycle.DEACTIVATED_PROPERTY, "true", now)
            images.delete(connection, image, status, now)
            return image.with_(status=status, updated_at=now, locations=() if later else image.locations)

        image = self.database.write(work)
        self.notifications.tell("image.delete", image, **gone(image.updated_at))
        return image

    def add_tag(self, context: Context, image_id: str, tag: str) -> Image:
        """Give the image one more tag; the others are not touched (API reference, Image tags).

        Raises `BadRequest`, `NotFound`, `Forbidden`, `TooLarge`.
        """
        self.schema.validate_value("tags", [tag])

        def change(image: Image) -> tuple[str, ...]:
            if tag in image.tags:
                return image.tags
            within("tag", len(image.tags) + 1, self.settings.image_tag_quota)
            return (*image.tags, tag)

        return self._change_tags(context, image_id, change)

    def remove_tag(self, context: Context, image_id: str, tag: str) -> Image:
        """Take one tag from the image. Raises `NotFound` (image, or tag), `Forbidden`."""

        def change(image: Image) -> tuple[str, ...]:
            if tag not in image.tags:
                raise NotFound(f"Image {image_id} has no such tag.")
            return tuple(other for other in image.tags if other != tag)

        return self._change_tags(context, image_id, change)

    def _change_tags(self, context: Context, image_id: str, change: Callable[[Image], tuple[str, ...]]) -> Image:
        """Every change counts as one of the image, also one that finds the tag there already (so does Glance)."""

        def work(connection: Connection) -> Image:
            before = images.get(connection, image_id, context, lock=True)
            self.policy.require_for_image("modify_image", context, before)
            require_owner(context, before)
            after = before.with_(tags=change(before), updated_at=lifecycle.now())
            images.update(connection, before, after)
            return after

        image = self.database.write(work)
        self.notifications.tell("image.update", image)
        return image

    def deactivate(self, context: Context, image_id: str) -> Image:
        """Keep the bytes from everybody but administrators; downloads that run go on. Raises as `_switch`."""
        return self._switch(context, image_id, "deactivate", "active", "deactivated")

    def reactivate(self, context: Context, image_id: str) -> Image:
        """Let the bytes be had again. Raises as `_switch`."""
        return self._switch(context, image_id, "reactivate", "deactivated", "active")

    def _switch(self, context: Context, image_id: str, rule: str, before: str, after: str) -> Image:
        """Nothing happens to an image that is there already (API reference, Image actions).

        Raises `NotFound`, `Forbidden` (policy, owner, any other status).
        """

        def work(connection: Connection) -> tuple[Image, bool]:
            image = images.get(connection, image_id, context, lock=True)
            self.policy.require_for_image(rule, context, image)
            require_owner(context, image)
            if image.status == after:
                return image, False
            if image.status != before:
                raise Forbidden(f"Not allowed to {rule} an image in status {image.status}.")
            now = lifecycle.now()
            images.set_status(connection, image_id, before, after, now)
            return image.with_(status=after, updated_at=now), True

        image, changed = self.database.write(work)
        if changed:
            self.notifications.tell("image.update", image)
        return image

    def _check_properties(self, after: Image, before: Image | None) -> None:
        """Limits on properties and tags; an image over a limit that was lowered can still be changed."""
        new = after.properties.keys() - (before.properties.keys() if before else set())
        if len({name.casefold() for name in after.properties}) < len(after.properties) and new:
            raise BadRequest("Names of properties must differ by more than case: not every database tells them apart.")
        names = {name for name in after.properties if not name.startswith(RESERVED_PREFIX)}
        grew = before is None or names - before.properties.keys()
        if grew:
            within("property", len(names), self.settings.image_property_quota)
        if before is None or set(after.tags) != set(before.tags):
            within("tag", len(after.tags), self.settings.image_tag_quota)


def _rule_for(change: patch.Change) -> str:
    if change.name != patch.LOCATIONS:
        return "modify_image"
    return "delete_image_location" if change.operation == "remove" else "set_image_location"


def within(what: str, count: int, quota: int) -> None:
    """Raise `TooLarge` when an image would have more parts of a kind than the quota lets it; negative: no limit."""
    if 0 <= quota < count:
        raise TooLarge(f"An image may have {quota} {what}s here, not {count}.")


def _refuse(names: Collection[str], why: str) -> None:
    if names:
        raise Forbidden(f"Attribute '{next(iter(names))[:255]}' is {why}.")


def _from_body(body: dict[str, Any], context: Context) -> Image:
    known = {name: body[name] for name in patch.WRITABLE if name in body}
    extra = {name: value for name, value in body.items() if name not in patch.WRITABLE and name != "id"}
    now = lifecycle.now()
    known["tags"] = tuple(dict.fromkeys(known.get("tags", ())))
    known.setdefault("owner", context.project_id)
    known.setdefault("visibility", "shared")
    return Image(
        id=body.get("id") or str(uuid.uuid4()),
        status="queued",
        created_at=now,
        updated_at=now,
        properties=extra,
        **known,
    )
