"""Rows about records: one image, and pages of many."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.measure import Row, Side, in_turn
from bench.servers import HEADER, PROJECT, Bare, Service, wrk
from glimpse.db.tables import image_properties, image_tags, images

IMAGES = 100_000
MARKER = 90_000
BATCH = 5_000
SECONDS = 4
FIRST = datetime(2024, 1, 1)  # noqa: DTZ001 - as the database holds it


def show(folder: Path, connection: str, rounds: int, database: str) -> Row:
    """GET of one image in one worker, against a bare handler."""
    service = Service(folder / "glimpse", connection, 1)
    service.start()
    bare = Bare(folder / "bare", connection)
    bare.start()
    try:
        path = f"/v2/images/{service.create()}"
        ours, theirs = in_turn(
            rounds,
            lambda: wrk(f"{service.url}{path}", SECONDS, headers=[HEADER]),
            lambda: wrk(f"{bare.url}{path}", SECONDS, headers=[HEADER]),
        )
    finally:
        bare.stop()
        service.stop()
    return Row(
        f"GET image, 16 connections, one worker, {database}", "bare aiohttp handler: same SQL, same JSON",
        Side("Glimpse", "requests/s", ours), Side("bare", "requests/s", theirs), reach=0.60,
    )  # fmt: skip


def pages(folder: Path, connection: str, rounds: int, database: str) -> Row:
    """The first page of 25 out of many images, against one far behind."""
    service = Service(folder / "glimpse", connection, 1)
    # First the rows, then the indexes for lists: the other way round takes minutes.
    service.glimpse.manage("db", "upgrade")
    marker = fill(connection)
    service.start()
    try:
        first_page, far_page = f"{service.url}/v2/images?limit=25", f"{service.url}/v2/images?limit=25&marker={marker}"
        far, first = in_turn(
            rounds,
            lambda: 1000 / wrk(far_page, SECONDS, connections=1, headers=[HEADER]),
            lambda: 1000 / wrk(first_page, SECONDS, connections=1, headers=[HEADER]),
        )
    finally:
        service.stop()
    return Row(
        f"list of 25 of {IMAGES:,} images, {database}: the page behind number {MARKER:,}", "the first page",
        Side("far page", "ms", far), Side("first page", "ms", first), reach=1.3, at_most=True,
    )  # fmt: skip


def fill(connection: str) -> str:
    """Put the images into the tables, each with 5 properties and 2 tags; the id of the marker's."""
    engine = sa.create_engine(connection)
    marker = ""
    with engine.begin() as transaction:
        for start in range(0, IMAGES, BATCH):
            numbers = range(start, start + BATCH)
            ids = {number: str(uuid.uuid4()) for number in numbers}
            # Pages begin with the newest.
            marker = ids.get(IMAGES - MARKER, marker)
            transaction.execute(images.insert(), [_image(number, ids[number]) for number in numbers])
            transaction.execute(image_properties.insert(), [row for n in numbers for row in _properties(n, ids[n])])
            transaction.execute(image_tags.insert(), [row for n in numbers for row in _tags(n, ids[n])])
    with engine.begin() as transaction:
        transaction.execute(sa.text("ANALYZE" if engine.name == "sqlite" else "ANALYZE TABLE images"))
    engine.dispose()
    return marker


def _times(number: int) -> dict[str, Any]:
    when = FIRST + timedelta(seconds=307 * number)
    return {"created_at": when, "updated_at": when, "deleted": False}


def _image(number: int, image_id: str) -> dict[str, Any]:
    # Every image is one that the caller may see, each in one of the ways.
    visibility = ("public", "private", "shared", "public")[number % 4]
    return {
        "id": image_id, "name": f"image {number}", "size": random.randrange(1 << 34), "status": "active",
        "disk_format": "qcow2", "container_format": "bare", "checksum": uuid.uuid4().hex, "min_disk": 0, "min_ram": 0,
        "owner": uuid.uuid4().hex if visibility == "public" else PROJECT, "protected": False, "visibility": visibility,
        "os_hidden": False, "os_hash_algo": "sha512", "os_hash_value": uuid.uuid4().hex * 4, **_times(number),
    }  # fmt: skip


def _properties(number: int, image_id: str) -> Iterator[dict[str, Any]]:
    for index in range(5):
        yield {"image_id": image_id, "name": f"property_{index}", "value": f"{number}", **_times(number)}


def _tags(number: int, image_id: str) -> Iterator[dict[str, Any]]:
    for value in ("one", "two"):
        yield {"image_id": image_id, "value": value, **_times(number)}
