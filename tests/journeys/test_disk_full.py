"""No room where the bytes should go: a small file system, or a limit on the size of a file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .client import Api
from .content import MIB, noise
from .service import Service

ROOM = 4 * MIB


def mounted(where: Path) -> bool:
    """Whether a small memory file system could be mounted here (root, with the right to)."""
    where.mkdir()
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(where)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _limited(own: Callable[..., Service]) -> Service:
    """A service that may not write files larger than ROOM: a full disk for who is not root."""
    return own(None, ("prlimit", f"--fsize={ROOM}", "--"))


@pytest.fixture
def full(own: Callable[..., Service], tmp_path: Path) -> Iterator[Service]:
    """A service whose store has room for about 4 MB."""
    small = tmp_path / "small"
    if not mounted(small):
        yield _limited(own)
        return
    service = own({"fs": {"filesystem_store_datadir": f"{small}/images"}})
    try:
        yield service
    finally:
        service.kill()
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def left(service: Service, tmp_path: Path) -> list[Path]:
    return [*service.stored(), *(path for path in (tmp_path / "small").rglob("*") if path.is_file())]


def pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


def journey(service: Service, tmp_path: Path) -> None:
    api = Api(service.url)
    large, small = noise(6 * MIB), noise(MIB)
    image = api.ready()
    for body in (large, pieces(large)):
        response = api.raw_upload(image["id"], body)
        assert response.status_code == 413, response.text
        found = api.show(image["id"])
        assert (found["status"], found["size"], found["checksum"]) == ("queued", None, None)
        assert left(service, tmp_path) == []
        assert api.raw_download(image["id"]).status_code == 204
    # records still work, and so does what fits
    api.patch(image["id"], {"op": "add", "path": "/name", "value": "still here"})
    api.upload(image["id"], small)
    assert api.download(image["id"]) == small
    api.close()


def test_disk(full: Service, tmp_path: Path) -> None:
    journey(full, tmp_path)


def test_file_size(own: Callable[..., Service], tmp_path: Path) -> None:
    journey(_limited(own), tmp_path)


def test_room_comes_back(full: Service, tmp_path: Path) -> None:
    """Deleting makes room at once."""
    api = Api(full.url)
    for number in range(3):
        image = api.active(noise(3 * MIB, number))
        api.delete(image["id"])
    assert left(full, tmp_path) == []
    api.close()


@pytest.mark.better_than_glance  # answers 410 for ever: it looks once, when it starts
def test_directory_vanishes_and_returns(own: Callable[..., Service]) -> None:
    """An unmounted store gives a refusal, never a stack trace, and works again when it is back."""
    service = own()
    api = Api(service.url)
    image = api.ready()
    (service.home / "images").rename(service.home / "away")
    (service.home / "images").write_text("not a directory")
    response = api.raw_upload(image["id"], b"x")
    assert response.status_code in (410, 413, 503)
    assert api.show(image["id"])["status"] == "queued"
    (service.home / "images").unlink()
    (service.home / "away").rename(service.home / "images")
    api.upload(image["id"], b"x")
    assert api.download(image["id"]) == b"x"
    api.close()
