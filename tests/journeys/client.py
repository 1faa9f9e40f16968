"""A thin caller of the Image API: every method does one request."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH_21 = "application/openstack-images-v2.1-json-patch"
PATCH_20 = "application/openstack-images-v2.0-json-patch"

Image = dict[str, Any]
Body = bytes | Iterable[bytes]
Images = list[Image]
Task = dict[str, Any]
Tasks = list[Task]


def unused() -> str:
    """A name, tag or id that no other test uses."""
    return str(uuid.uuid4())


class Api:
    """The service as one user sees it. `raw_` methods answer the response, the others check it first."""

    def __init__(self, url: str, credentials: tuple[str, str] | None = None) -> None:
        self.url = url
        self.made: list[str] = []
        self.http = httpx.Client(
            base_url=url,
            auth=credentials,
            timeout=30,
            trust_env=False,
            verify=False,  # plain HTTP: reading the system's certificates would only take time
            limits=httpx.Limits(max_connections=128),
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Any request."""
        return self.http.request(method, path, **arguments)

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        """GET."""
        return self.http.get(path, **arguments)

    def raw_create(self, /, **fields: Any) -> httpx.Response:
        """POST /v2/images."""
        return self.http.post("/v2/images", json=fields)

    def create(self, /, **fields: Any) -> Image:
        """A new record, status queued."""
        response = self.raw_create(**fields)
        assert response.status_code == 201, response.text
        image: Image = response.json()
        self.made.append(image["id"])
        return image

    def ready(self, /, **fields: Any) -> Image:
        """A new record that takes raw data."""
        return self.create(**{"disk_format": "raw", "container_format": "bare", **fields})

    def active(self, data: Body = b"content", /, **fields: Any) -> Image:
        """A new image with data."""
        image = self.ready(**fields)
        self.upload(image["id"], data)
        return self.show(image["id"])

    def raw_upload(self, image_id: str, data: Body, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """PUT file; an iterable goes out chunked."""
        return self.http.put(f"/v2/images/{image_id}/file", content=data, headers={**OCTETS, **(headers or {})})

    def upload(self, image_id: str, data: Body, headers: Mapping[str, str] | None = None) -> None:
        """PUT file, which must succeed."""
        response = self.raw_upload(image_id, data, headers)
        assert response.status_code == 204, f"{response.status_code} {response.text}"
        assert response.content == b""

    def raw_stage(self, image_id: str, data: Body, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """PUT stage; an iterable goes out chunked."""
        return self.http.put(f"/v2/images/{image_id}/stage", content=data, headers={**OCTETS, **(headers or {})})

    def staged(self, data: Body = b"content", /, **fields: Any) -> Image:
        """A new image whose data is staged."""
        image = self.ready(**fields)
        response = self.raw_stage(image["id"], data)
        assert response.status_code == 204, f"{response.status_code} {response.text}"
        return self.show(image["id"])

    def raw_import(
        self, image_id: str, method: str | Mapping[str, Any], headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """POST import; `method` is a name, or the whole of that member of the body."""
        named = {"name": method} if isinstance(method, str) else method
        return self.http.post(f"/v2/images/{image_id}/import", json={"method": named, **more}, headers=headers)

    def order(self, image_id: str, method: str | Mapping[str, Any], **more: Any) -> None:
        """POST import, which must be accepted; the work goes on after it."""
        response = self.raw_import(image_id, method, **more)
        assert response.status_code == 202, f"{response.status_code} {response.text}"
        assert response.content == b""

    def tasks(self, image_id: str) -> Tasks:
        """The tasks of an image, in no order: their times are whole seconds."""
        response = self.get(f"/v2/images/{image_id}/tasks")
        assert response.status_code == 200, response.text
        found: Tasks = response.json()["tasks"]
        return found

    def settled(self, image_id: str, seconds: float = 20) -> tuple[Image, Task]:
        """The image and its only task, when that has ended and the image's lock is released; one of its tasks."""
        deadline = time.monotonic() + seconds
        while True:
            found, image = self.tasks(image_id), self.show(image_id)
            busy = [task for task in found if task["status"] in ("pending", "processing")]
            if found and not busy and "os_glance_import_task" not in image:
                return self.show(image_id), found[-1]
            assert time.monotonic() < deadline, f"{image['status']}: {found}"
            time.sleep(0.05)

    def imported(self, image_id: str, method: str | Mapping[str, Any], **more: Any) -> tuple[Image, Task]:
        """POST import, which must be accepted, and what came of it."""
        before = {task["id"] for task in self.tasks(image_id)}
        self.order(image_id, method, **more)
        image, _ = self.settled(image_id)
        [task] = [task for task in self.tasks(image_id) if task["id"] not in before]
        return image, task

    def raw_download(self, image_id: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """GET file."""
        return self.http.get(f"/v2/images/{image_id}/file", headers=headers)

    def download(self, image_id: str) -> bytes:
        """The whole content."""
        response = self.raw_download(image_id)
        assert response.status_code == 200, f"{response.status_code} {response.text}"
        return response.content

    def raw_show(self, image_id: str) -> httpx.Response:
        """GET image."""
        return self.http.get(f"/v2/images/{image_id}")

    def show(self, image_id: str) -> Image:
        """The record."""
        response = self.raw_show(image_id)
        assert response.status_code == 200, response.text
        image: Image = response.json()
        return image

    def raw_patch(self, image_id: str, operations: Any, media: str = PATCH_21) -> httpx.Response:
        """PATCH image with a JSON document."""
        headers = {"Content-Type": media}
        return self.http.patch(f"/v2/images/{image_id}", json=operations, headers=headers)

    def patch(self, image_id: str, *operations: Mapping[str, Any]) -> Image:
        """PATCH image (v2.1), which must succeed."""
        response = self.raw_patch(image_id, list(operations))
        assert response.status_code == 200, response.text
        image: Image = response.json()
        return image

    def raw_delete(self, image_id: str) -> httpx.Response:
        """DELETE image."""
        return self.http.delete(f"/v2/images/{image_id}")

    def delete(self, image_id: str) -> None:
        """DELETE image, which must succeed."""
        response = self.raw_delete(image_id)
        assert response.status_code == 204, response.text

    def raw_list(self, query: Sequence[tuple[str, str]] = (), **parameters: str) -> httpx.Response:
        """GET /v2/images; `query` for repeated or oddly named parameters."""
        return self.http.get("/v2/images", params=[*query, *parameters.items()])

    def list(self, query: Sequence[tuple[str, str]] = (), **parameters: str) -> Images:
        """The images of one page."""
        response = self.raw_list(query, **parameters)
        assert response.status_code == 200, response.text
        images: Images = response.json()["images"]
        return images

    def pages(self, **parameters: str) -> Iterator[Images]:
        """Every page, following the `next` links; a walk of more than 100 pages turns in circles."""
        response = self.raw_list((), **parameters)
        for _ in range(100):
            assert response.status_code == 200, response.text
            page = response.json()
            yield page["images"]
            if "next" not in page:
                return
            response = self.http.get(page["next"])
        raise AssertionError("the pages do not end")

    def wait_for_status(self, image_id: str, status: str, seconds: float = 10) -> Image:
        """The record once it has this status."""
        deadline = time.monotonic() + seconds
        while (image := self.show(image_id))["status"] != status:
            assert time.monotonic() < deadline, f"status is {image['status']}, not {status}"
            time.sleep(0.05)
        return image


def web_download(url: object) -> dict[str, object]:
    """The method of an import from the web."""
    return {"name": "web-download", "uri": url}


def path_of(url: str) -> str:
    """The path part of a link."""
    return urlsplit(url).path


def add(name: str, value: object) -> dict[str, object]:
    """A patch operation."""
    return {"op": "add", "path": f"/{name}", "value": value}


def replace(name: str, value: object) -> dict[str, object]:
    """A patch operation."""
    return {"op": "replace", "path": f"/{name}", "value": value}


def remove(name: str) -> dict[str, object]:
    """A patch operation."""
    return {"op": "remove", "path": f"/{name}"}
