"""The Image API as one user sees it, call by call, with nothing between the test and the wire."""

from __future__ import annotations

from typing import Any

import requests

PATCH_TYPE = "application/openstack-images-v2.1-json-patch"


class ImageApi:
    """A session with the service at `url`. Every call returns the answer; `ok` ones raise on any error."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        if token is not None:
            self._session.headers["X-Auth-Token"] = token

    def call(self, method: str, path: str, seconds: float = 60, **more: Any) -> requests.Response:
        """One request; whatever comes back."""
        return self._session.request(method, f"{self._url}{path}", timeout=seconds, **more)

    def ok(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request that must succeed. Raises `requests.HTTPError` with the answer's text."""
        answer = self.call(method, path, **more)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text}", response=answer)
        return answer

    def create(self, **fields: Any) -> str:
        """Make an image record; its id."""
        identity: str = self.ok("POST", "/v2/images", json=fields).json()["id"]
        return identity

    def upload(self, identity: str, content: bytes) -> None:
        """Give an image its bytes."""
        headers = {"Content-Type": "application/octet-stream"}
        self.ok("PUT", f"/v2/images/{identity}/file", data=content, headers=headers)

    def download(self, identity: str) -> bytes:
        """The bytes of an image."""
        return self.ok("GET", f"/v2/images/{identity}/file").content

    def show(self, identity: str) -> dict[str, Any]:
        """An image record."""
        record: dict[str, Any] = self.ok("GET", f"/v2/images/{identity}").json()
        return record

    def images(self, query: str = "") -> list[dict[str, Any]]:
        """The first page of the list."""
        found: list[dict[str, Any]] = self.ok("GET", f"/v2/images{query}").json()["images"]
        return found

    def change(self, identity: str, *operations: dict[str, Any]) -> None:
        """Change a record by JSON patch."""
        headers = {"Content-Type": PATCH_TYPE}
        self.ok("PATCH", f"/v2/images/{identity}", json=list(operations), headers=headers)

    def delete(self, identity: str) -> None:
        """Delete an image."""
        self.ok("DELETE", f"/v2/images/{identity}")
