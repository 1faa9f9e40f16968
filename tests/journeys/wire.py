"""HTTP by hand, for what a client library will not send: halves, lies, noise."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """A response; header names are lower-cased."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """A connection to the service. Times out after 15 seconds without a byte."""

    def __init__(self, url: str, receive_buffer: int | None = None) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(15)
        self._socket.connect((parts.hostname, parts.port or 80))
        self._pending = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self._socket.close()

    def finish(self) -> None:
        """Say that nothing more will be sent; answers can still be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def head(self, method: str, target: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a request line and headers; `Host` is added unless given."""
        fields = {"Host": self.host, **(headers or {})}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def chunk(self, data: bytes, extension: str = "") -> None:
        """Send one chunk of a chunked body; an empty one ends the body."""
        self.send(f"{len(data):x}{extension}\r\n".encode() + data + b"\r\n")

    def answer(self, method: str = "GET") -> Answer:
        """Read one whole response. Raises ConnectionError when the service closes before its end."""
        status, headers = self.answer_head()
        if method == "HEAD" or status in (204, 304) or status < 200:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Answer(status, headers, b"".join(self._chunks()))
        if "content-length" in headers:
            return Answer(status, headers, self.read(int(headers["content-length"])))
        return Answer(status, headers, self.read_to_end())

    def answer_head(self) -> tuple[int, dict[str, str]]:
        """Read a status line and headers."""
        status = int(self._line().split()[1])
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return status, headers

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        while len(self._pending) < size:
            self._more()
        data = bytes(self._pending[:size])
        del self._pending[:size]
        return data

    def read_to_end(self) -> bytes:
        """Everything until the service closes."""
        try:
            while True:
                self._more()
        except ConnectionError:
            data = bytes(self._pending)
            self._pending.clear()
            return data

    def closed_within(self, seconds: float) -> bool:
        """Whether the service closes the connection in this time."""
        self._socket.settimeout(seconds)
        try:
            self.read_to_end()
        except TimeoutError:
            return False
        return True

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line().partition(";")[0], 16):
            yield self.read(size)
            self.read(2)
        while self._line():
            pass

    def _line(self) -> str:
        while b"\r\n" not in self._pending:
            self._more()
        line, _, rest = self._pending.partition(b"\r\n")
        self._pending = rest
        return line.decode("latin-1")

    def _more(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("closed by the service")
        self._pending += data


def ask(
    url: str, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request on a connection of its own, the target sent as it is written here."""
    with Wire(url) as wire:
        fields = dict(headers or {})
        if body is not None:
            fields.setdefault("Content-Length", str(len(body)))
        wire.head(method, target, fields)
        if body:
            wire.send(body)
        return wire.answer(method)


def refused(url: str) -> bool:
    """Whether nobody listens there any more."""
    try:
        Wire(url).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until_refused(url: str, seconds: float) -> bool:
    """Whether connections are refused within this time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if refused(url):
            return True
        time.sleep(0.05)
    return False
