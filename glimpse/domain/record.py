"""The records: images, where their bytes are, their copies, with whom they are shared, tasks. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

MEMBER_STATUSES = ("pending", "accepted", "rejected")


@dataclass(frozen=True, slots=True)
class Location:
    """A place that holds the image's bytes: a URL of a store, and what is known of it (`store`: the store's id).

    Keys of S3, which Glance once wrote into URLs, are left out: no store needs them, and clients may read locations.
    """

    url: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: str = "active"
    id: int | None = None

    def __post_init__(self) -> None:
        if self.url.startswith(("s3", "S3")):
            object.__setattr__(self, "url", without_keys(self.url))

    @property
    def shown(self) -> str:
        """The URL as clients may read it: without the user and key that Glance writes into one of Swift.

        The store reads by them, so they stay in `url`. Glance leaves slashes in a key as they are.
        """
        scheme, _, rest = self.url.partition("://")
        hides = scheme.lower() in ("swift", "swift+http", "swift+https")
        return f"{scheme}://{rest.rpartition('@')[2]}" if hides else self.url


def without_keys(url: str) -> str:
    """A URL of S3 without the keys before its host, which may hold slashes; any other URL as it is."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("s3", "s3+http", "s3+https"):
        return url
    # The host is what is left of bucket and key.
    place, *names = rest.rsplit("/", 2)
    return f"{scheme}://{'/'.join([place.rpartition('@')[2], *names])}"


# Begins the URL of a place that is to be erased, where a store may hold something of an image and nobody knows what:
# the metadata name the store, and its `discard` finds it.
LEFTOVER = "leftover://"


@dataclass(frozen=True, slots=True)
class Image:
    """An image's record (API reference, Images; table `images` and its children).

    `size` and `virtual_size` are in bytes, `min_ram` in MiB, `min_disk` in GiB, times are UTC without zone and
    without fractions. `member` is the caller's project when the image is shared with it, else None.
    """

    id: str
    status: str
    visibility: str
    created_at: datetime
    updated_at: datetime
    name: str | None = None
    owner: str | None = None
    protected: bool = False
    os_hidden: bool = False
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    size: int | None = None
    virtual_size: int | None = None
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    properties: Mapping[str, str | None] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()
    member: str | None = None

    def with_(self, **changes: Any) -> Image:
        """A copy with other values."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Member:
    """A project with which a shared image is shared (API reference, Sharing; table `image_members`).

    `status` is one of `MEMBER_STATUSES`; times as in `Image`.
    """

    image_id: str
    member_id: str
    status: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Task:
    """Work on an image that goes on after the call that asked for it (tables `tasks` and `task_info`).

    `type` is import, api_image_import or location_import; `status` pending, processing, success or failure. Times are
    UTC without zone. `input` and `result` are JSON objects, `message` is a text for people.
    """

    id: str
    type: str
    status: str
    owner: str
    created_at: datetime
    updated_at: datetime
    image_id: str | None = None
    request_id: str | None = None
    user_id: str | None = None
    expires_at: datetime | None = None
    input: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of an image's bytes in the cache of a node (table `cached_images`).

    `size` is in bytes, `checksum` the MD5 of what is there, in hexadecimal digits. Times are UTC without zone. `id` is
    the number of its row, None where it has none.
    """

    image_id: str
    size: int
    checksum: str | None
    last_accessed: datetime
    last_modified: datetime
    hits: int = 0
    id: int | None = None
