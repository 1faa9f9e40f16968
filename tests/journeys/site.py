"""Somebody else's web server, on a free port of loopback: what http locations point to."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """A web server with pages in memory; `asked` lists the requests that came.

    `before` runs ahead of the bytes of each GET, `before_head` ahead of each answer; `midway` when so many of the bytes
    that it comes with are sent. A page may have another status than 200 (`codes`), or announce another length than it
    has, or none at all (`announced`).
    """

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.codes: dict[str, int] = {}
        self.announced: dict[str, int | None] = {}
        self.before: Callable[[str], object] = lambda path: None
        self.midway: tuple[int, Callable[[], object]] | None = None
        self.before_head: Callable[[str], object] = lambda path: None
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(True)

            def do_HEAD(self) -> None:
                self.answer(False)

            def answer(self, with_body: bool) -> None:
                site.asked.append(f"{self.command} {self.path}")
                site.before_head(self.path)
                if self.path.startswith("/moved/"):
                    self.send_response(302)
                    self.send_header("Location", self.headers.get("X-To") or site.pages[self.path].decode())
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data = site.pages.get(self.path)
                self.send_response(site.codes.get(self.path, 200 if data is not None else 404))
                length = site.announced.get(self.path, len(data or b""))
                if length is not None:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                if with_body and data is not None:
                    site.before(self.path)
                    if site.midway is not None:
                        count, pause = site.midway
                        self.wfile.write(data[:count])
                        data = data[count:]
                        pause()
                    with suppress(ConnectionError):
                        self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, data: bytes, folder: str = "") -> str:
        """A new page; its URL."""
        path = f"/{folder}{uuid.uuid4()}"
        self.pages[path] = data
        return self.url + path

    def moved(self, to: str) -> str:
        """A URL that redirects."""
        return self.add(to.encode(), "moved/")

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
