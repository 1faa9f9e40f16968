"""An Image API somewhere else, as `glance-replicator` uses it: version 2, of Glance or of this service."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import requests

Document = dict[str, Any]
TIMEOUTS = (30.0, 900.0)  # seconds to connect, and without a byte: a store may take its time after an upload
PAGE = 200
_PATCH = "application/openstack-images-v2.1-json-patch"
_PLACE = re.compile(r"(https?://)?[^/\s@]+(:[0-9]+)?(/[^?#\s]*)?")


class Failure(Exception):
    """Something that could not be done, in one line for the operator."""


class Remote:
    """A server that speaks the Image API, by `host:port` or by a URL, for whoever has that token.

    Every method raises `Failure`. Nothing is asked of another server than this one: redirects are not followed.
    """

    def __init__(self, place: str, token: str) -> None:
        if not _PLACE.fullmatch(place) or (":" not in place.rpartition("]")[2]):
            raise ValueError(f"{place!r} is no server; expected: host:port, or a URL")
        self.place = place
        self._base = (place if "://" in place else f"http://{place}").rstrip("/")
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"
        if token:
            self._session.headers["X-Auth-Token"] = token

    def _ask(self, method: str, path: str, fine: tuple[int, ...], **arguments: Any) -> requests.Response:
        try:
            answer = self._session.request(
                method, f"{self._base}{path}", timeout=TIMEOUTS, allow_redirects=False, **arguments
            )
        except requests.RequestException as error:
            raise Failure(f"{self.place} does not answer to {method} {path}: {type(error).__name__}") from error
        if answer.status_code not in fine:
            with answer:
                raise Failure(f"{self.place} answers {answer.status_code} to {method} {path}: {_reason(answer)}")
        return answer

    def _document(self, method: str, path: str, fine: int, **arguments: Any) -> Document:
        try:
            found = self._ask(method, path, (fine,), **arguments).json()
        except requests.JSONDecodeError as error:
            raise Failure(f"{self.place} answers no JSON to {method} {path}") from error
        if not isinstance(found, dict):
            raise Failure(f"{self.place} answers no object to {method} {path}")
        return found

    def images(self) -> Iterator[Document]:
        """All images that may be seen, page by page; hidden ones and those of the community among them."""
        for hidden in ("false", "true"):
            path = f"/v2/images?limit={PAGE}&visibility=all&os_hidden={hidden}&sort=created_at:asc,id:asc"
            while path:
                page = self._document("GET", path, 200)
                for image in page.get("images") or ():
                    yield checked_image(image, self.place)
                path = page.get("next") or ""
                if path and not path.startswith("/v2/images?"):
                    # Behind our address, "@other/" would be another server.
                    raise Failure(f"{self.place} goes on with its list somewhere else")

    def find(self, image_id: str) -> Document | None:
        """One image; None when there is none, as far as may be seen."""
        answer = self._ask("GET", f"/v2/images/{image_id}", (200, 404))
        return checked_image(answer.json(), self.place) if answer.status_code == 200 else None

    def create(self, fields: Mapping[str, Any]) -> Document:
        """A new record without bytes."""
        return self._document("POST", "/v2/images", 201, json=fields)

    def change(self, image_id: str, operations: list[Document]) -> None:
        """A JSON patch."""
        headers = {"Content-Type": _PATCH}
        self._ask("PATCH", f"/v2/images/{image_id}", (200,), json=operations, headers=headers)

    def delete(self, image_id: str) -> None:
        """The record and its bytes; one that is gone already is fine."""
        self._ask("DELETE", f"/v2/images/{image_id}", (204, 404))

    def upload(self, image_id: str, blocks: Iterator[bytes], size: int | None) -> None:
        """Give a record its bytes; whatever `blocks` raises breaks the upload off and passes through."""
        headers = {"Content-Type": "application/octet-stream"}
        body = blocks if size is None else _Body(blocks, size)
        self._ask("PUT", f"/v2/images/{image_id}/file", (204,), data=body, headers=headers)

    def download(self, image_id: str, block: int) -> Iterator[bytes]:
        """The bytes of an image, in blocks of that length."""
        with self._ask("GET", f"/v2/images/{image_id}/file", (200, 204), stream=True) as answer:
            try:
                yield from answer.iter_content(block)
            except requests.RequestException as error:
                raise Failure(f"{self.place} broke off in image {image_id}: {type(error).__name__}") from error


class _Body:
    """Blocks whose number of bytes is known, so that they are not sent in chunks."""

    def __init__(self, blocks: Iterator[bytes], size: int) -> None:
        self._blocks = blocks
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks


def checked_image(found: Any, where: object) -> Document:
    """The record of an image, as `where` has it. Raises `Failure` for what is none."""
    if not isinstance(found, dict) or not {"id", "status", "size"} <= found.keys():
        raise Failure(f"{where} has something that is no record of an image")
    check_id(found["id"])
    return found


def check_id(image_id: str) -> None:
    """An id becomes the name of a file: raise `Failure` when it is none."""
    try:
        if str(uuid.UUID(image_id)) == image_id.lower():
            return
    except (ValueError, AttributeError, TypeError):
        pass
    raise Failure(f"{str(image_id)[:64]!r} is no id of an image")


def _reason(answer: requests.Response) -> str:
    """What an error says, without its markup, in one short line."""
    text = re.sub(r"<[^>]*>", " ", answer.text[:2000])
    return " ".join(text.split())[:200]
