"""The places of an image's bytes, as a PATCH changes them (API reference, Update image; spec 1.2.5).

No store is asked here: what has to be known of a URL comes in with `LocationRules`, and a URL that nobody has looked at
yet is given back with `Unmeasured`, so that the caller can look and come again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glimpse.domain.lifecycle import check_transition
from glimpse.domain.record import Image, Location, without_keys
from glimpse.domain.schema import TEXT_MAX, Checker, Schema
from glimpse.errors import BadRequest, Conflict, Forbidden, TooLarge

MD5_SIZE = 16  # bytes


class Unmeasured(Exception):
    """A change names URLs that no store has been asked about."""

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__(f"{len(urls)} URLs")
        self.urls = urls


@dataclass(frozen=True)
class LocationRules:
    """What changes of locations depend on.

    `quota` is the most locations of an image (negative: no limit), `algorithm` the hash that images have here,
    `store_of` finds the id of the store that a URL belongs to, None where clients do not see ids. `sizes` holds the
    bytes behind each URL that was looked at, None for one that cannot be used.
    """

    quota: int
    algorithm: str
    store_of: Callable[[str], str | None]
    sizes: Mapping[str, int | None]


def add(image: Image, position: str, value: Mapping[str, Any], rules: LocationRules) -> Image:
    """One more location; the first one makes a queued image active.

    Locations are kept in the order in which they came, so `position` only has to make sense. Raises `BadRequest`,
    `Conflict`, `TooLarge`, `Unmeasured`.
    """
    _require_open(image, "add")
    facts = _validation_data(image, [value], rules.algorithm)
    if position != "-" and not _is_number(position):
        raise BadRequest("There is no such position to put a location at.")
    return _activated(_with_new(image, [value], rules), facts)


def replace(image: Image, values: Sequence[Mapping[str, Any]], rules: LocationRules) -> Image:
    """All locations of an image that has none, or other metadata for those that it has.

    Raises `BadRequest`, `Conflict`, `Forbidden`, `TooLarge`, `Unmeasured`.
    """
    if not values:
        # An image that once had data never loses all of it and waits for other data (OSSA-2016-006).
        raise Forbidden("An image's locations cannot all be taken away.")
    _require_open(image, "replace")
    facts = _validation_data(image, values, rules.algorithm)
    if not image.locations or image.status == "queued":
        return _activated(_with_new(image, values, rules), facts)
    stored = {location.shown: location.url for location in image.locations}  # clients know them as they are shown
    values = [{**value, "url": stored.get(value["url"], value["url"])} for value in values]
    if sorted(value["url"] for value in values) != sorted(location.url for location in image.locations):
        raise BadRequest("The image has locations already: replacing them may only change their metadata.")
    new = [_location(value, rules) for value in values]
    # The rows stay and keep their order, so the first row gets the first URL.
    ids = sorted(location.id or 0 for location in image.locations)
    kept = (Location(each.url, each.metadata, id=row or None) for each, row in zip(new, ids, strict=True))
    return _activated(image.with_(locations=tuple(kept)), facts)


def remove(image: Image, position: str) -> Image:
    """One location less, but never the last one. Raises `BadRequest`, `Conflict`, `Forbidden`."""
    if image.status != "active":
        raise Conflict(f"Only an active image can lose a location, and this one is {image.status}.")
    if len(image.locations) <= 1:
        raise Forbidden("The last location of an image stays; delete the image instead.")
    if position == "-":
        index = len(image.locations) - 1
    elif _is_number(position) and int(position) < len(image.locations):
        index = int(position)
    else:
        raise BadRequest("There is no location at that position.")
    return image.with_(locations=image.locations[:index] + image.locations[index + 1 :])


def check_hash(algorithm: str, value: str) -> None:
    """Raise `ValueError` with the reason when `value` is no hash of that algorithm in hex."""
    _check_hex("os_hash_value", value, hashlib.new(algorithm, usedforsecurity=False).digest_size)


# The body of POST /v2/images/{image_id}/locations (API reference, Add location).
NEW_LOCATION: Schema = {
    "name": "location",
    "type": "object",
    "properties": {
        "url": {"type": "string", "description": "Where the image data is"},
        "validation_data": {
            "type": "object",
            "description": "What the data must hash to",
            "additionalProperties": False,
            "properties": {
                "os_hash_algo": {"type": "string", "maxLength": 64, "enum": ["sha1", "sha256", "sha512", "md5"]},
                "os_hash_value": {"type": "string", "maxLength": 128},
            },
            "dependencies": {"os_hash_algo": ["os_hash_value"], "os_hash_value": ["os_hash_algo"]},
        },
    },
    "required": ["url"],
}
_new_location = Checker("location", NEW_LOCATION)


@dataclass(frozen=True, slots=True)
class NewLocation:
    """An order to give an image a location; with what its bytes must hash to, or with neither algorithm nor value."""

    url: str
    algorithm: str | None = None
    value: str | None = None

    @classmethod
    def parse(cls, body: Any) -> NewLocation:
        """What a client sent. Raises `BadRequest`."""
        _new_location.check(body)
        if len(json.dumps(body["url"])) > TEXT_MAX // 2:
            raise BadRequest("The URL of the location is too long.")
        return cls.from_task({"loc_url": body["url"], "validation_data": body.get("validation_data", {})})

    @classmethod
    def from_task(cls, values: Mapping[str, Any]) -> NewLocation:
        """What a task was given as its input."""
        said = values.get("validation_data") or {}
        return cls(without_keys(values.get("loc_url", "")), said.get("os_hash_algo"), said.get("os_hash_value"))

    def validation_data(self) -> dict[str, str]:
        """As clients and tasks spell it."""
        if self.algorithm is None or self.value is None:
            return {}
        return {"os_hash_algo": self.algorithm, "os_hash_value": self.value}

    def check(self) -> None:
        """Raise `BadRequest` for a hash that the algorithm never makes."""
        if self.algorithm is not None and self.value is not None:
            try:
                check_hash(self.algorithm, self.value)
            except ValueError as error:
                raise BadRequest(str(error)) from error


def _require_open(image: Image, verb: str) -> None:
    if image.status not in ("active", "queued"):
        raise Conflict(f"An image in status {image.status} takes no change of its locations ({verb}).")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _with_new(image: Image, values: Sequence[Mapping[str, Any]], rules: LocationRules) -> Image:
    # What a queued image may have was refused before (spec 2.4) and does not come to life with the new ones.
    locations = list(image.locations) if image.status != "queued" else []
    count = len(locations) + len(values)
    if 0 <= rules.quota < count:
        raise TooLarge(f"An image may have {rules.quota} locations here, not {count}.")
    if unknown := [value["url"] for value in values if value["url"] not in rules.sizes]:
        raise Unmeasured(list(dict.fromkeys(unknown)))
    for value in values:
        new = _location(value, rules)
        if not rules.sizes[value["url"]]:
            raise BadRequest("Invalid location")
        if any((old.url, old.metadata) == (new.url, new.metadata) for old in locations):
            raise BadRequest(f"The location {new.url} already exists")
        locations.append(new)
    return image.with_(locations=tuple(locations), size=image.size or rules.sizes[values[0]["url"]])


def _location(value: Mapping[str, Any], rules: LocationRules) -> Location:
    metadata = dict(value["metadata"])
    _check_metadata(metadata)
    store = rules.store_of(value["url"])
    if store is not None:
        metadata["store"] = store
    if len(json.dumps(metadata)) > TEXT_MAX:
        raise BadRequest(f"The metadata of a location is longer than {TEXT_MAX} bytes.")
    return Location(value["url"], metadata)


def _check_metadata(value: Any) -> None:
    """Objects, lists and text: what everybody who reads locations can handle."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_metadata(each)
    elif not isinstance(value, str):
        raise BadRequest("The metadata of a location may only hold objects, lists and text.")


def _activated(image: Image, facts: Mapping[str, str]) -> Image:
    if image.status != "queued":
        return image
    check_transition(image, "active")
    return image.with_(status="active", **facts)


def _validation_data(image: Image, values: Sequence[Mapping[str, Any]], algorithm: str) -> Mapping[str, str]:
    """What the caller says that the bytes hash to, as far as the image does not know it yet.

    Only a queued image learns it: nobody replaces the bytes of an image by others (OSSN-0065). Raises `Conflict`.
    """
    said: dict[str, str] = {}
    for value in values:
        for name, text in value.get("validation_data", {}).items():
            if said.setdefault(name, text) != text:
                raise Conflict(f"Conflicting values for {name}")
    new = {name: text for name, text in said.items() if getattr(image, name) != text}
    for name in new:
        if getattr(image, name):
            raise Conflict(f"The image has another {name}")
    if not new:
        return {}
    if image.status != "queued":
        raise Conflict(f"{', '.join(new)} can only be set while the image is queued")
    if said["os_hash_algo"] != algorithm:
        raise Conflict(f"os_hash_algo must be {algorithm}, not {said['os_hash_algo']}")
    try:
        if "checksum" in new:
            _check_hex("checksum", new["checksum"], MD5_SIZE)
        check_hash(algorithm, said["os_hash_value"])
    except ValueError as error:
        raise Conflict(str(error)) from error
    return new


def _check_hex(name: str, text: str, size: int) -> None:
    if not re.fullmatch("[0-9a-fA-F]*", text):
        raise ValueError(f"{name} must be hexadecimal, not {text}")
    if len(text) != 2 * size:
        raise ValueError(f"{name} ({text}) is not the correct size (should be {size} bytes)")
