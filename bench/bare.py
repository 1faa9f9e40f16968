"""The least that an aiohttp service has to do for GET image: the same statements, the same hop to a thread, the JSON.

    python -m bench.bare DATABASE_URL PORT

No identity, no policy, no checks, no errors, no log: the difference to the real thing is what those cost.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from aiohttp import web
from sqlalchemy.engine import Engine

from glimpse.db import image_documents, images
from glimpse.db.engine import open_engine
from glimpse.domain.context import Context
from glimpse.settings import DatabaseSettings

RECORD_THREADS = 3  # the default of the service


def settings(url: str) -> DatabaseSettings:
    """The defaults of `[database]`."""
    return DatabaseSettings(
        url=url, max_pool_size=5, max_overflow=50, pool_timeout=30, recycle=3600, max_retries=10, retry_interval=10,
        mysql_sql_mode="TRADITIONAL", mysql_wsrep_sync_wait=None,
    )  # fmt: skip


def show(engine: Engine, image_id: str) -> bytes:
    """An image as JSON."""
    with engine.connect() as connection:
        [(_, text)] = images._document(engine.name).run(connection, {"image_id": image_id, "project": None})
    image = image_documents.read(text, Context())
    assert image is not None
    document: dict[str, Any] = {**image.properties, **{name: getattr(image, name) for name in image_documents.COLUMNS}}
    document["tags"] = image.tags
    for name in ("created_at", "updated_at"):
        document[name] = f"{document[name]:%Y-%m-%dT%H:%M:%SZ}"
    link = f"/v2/images/{image_id}"
    return orjson.dumps(document | {"self": link, "file": f"{link}/file", "schema": "/v2/schemas/image"})


async def serve(url: str, port: int) -> None:
    """Serve for ever."""
    engine = open_engine(settings(url), autocommit=True)
    threads = ThreadPoolExecutor(RECORD_THREADS)
    loop = asyncio.get_running_loop()

    async def handle(request: web.BaseRequest) -> web.Response:
        body = await loop.run_in_executor(threads, show, engine, request.path.rpartition("/")[2])
        headers = {"Content-Type": "application/json; charset=UTF-8", "x-openstack-request-id": f"req-{uuid.uuid4()}"}
        return web.Response(body=body, headers=headers)

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
