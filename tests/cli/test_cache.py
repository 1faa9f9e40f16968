"""`glance-cache-manage` against a running service, and the commands that make one pass over the directory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glimpse.cli import cache, cache_manage
from tests.journeys.client import Api
from tests.journeys.service import MULTI_STORE, Service

UNKNOWN = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a cache where everybody is admin."""
    made = Service(tmp_path_factory.mktemp("cached"), MULTI_STORE, {
        "DEFAULT": {"image_cache_dir": "{home}/cache", "image_cache_max_size": 100},
        "paste_deploy": {"flavor": "cachemanagement"},
    })  # fmt: skip
    made.db_sync()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def api(service: Service) -> Iterator[Api]:
    """The service, whose cache is empty."""
    caller = Api(service.url)
    caller.request("DELETE", "/v2/cache")
    yield caller
    caller.close()


@pytest.fixture
def manage(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`manage("list-cached")` is the command's exit code."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    return lambda *arguments: cache_manage.main(["-H", "127.0.0.1", "-p", str(service.port), *arguments])


def cached(service: Service) -> set[str]:
    """The copies in the directory."""
    return {path.name for path in (service.home / "cache").iterdir() if path.is_file()}


def fetch(service: Service) -> int:
    """One pass of the prefetcher."""
    return cache.prefetch(["--config-file", str(service.conf)])


def test_manage(
    service: Service, api: Api, manage: Callable[..., int], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    image = api.active(b"content")["id"]
    assert manage("list-cached") == 0
    assert "No cached images" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda question: "")
    assert manage("queue-image", image) == 0
    assert image not in api.get("/v2/queued_images").json()["queued_images"]
    assert manage("queue-image", image, "-f", "-v") == 0
    assert image in capsys.readouterr().out
    assert fetch(service) == 0
    assert cached(service) == {image}
    assert manage("list-cached") == 0
    shown = capsys.readouterr().out
    assert [cell.strip() for cell in shown.splitlines()[1].split("|")[1:-1]] == [
        "ID", "Last Accessed (UTC)", "Last Modified (UTC)", "Size", "Hits",
    ]  # fmt: skip
    row = [cell.strip() for cell in shown.splitlines()[3].split("|")[1:-1]]
    assert (row[0], row[3:]) == (image, ["7", "0"])
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    assert manage("delete-cached-image", image) == 0
    assert cached(service) == set()
    for command in ("delete-queued-image", "delete-cached-image"):
        assert manage(command, UNKNOWN, "--force") == 0
    for command in ("delete-all-cached-images", "delete-all-queued-images"):
        assert manage(command, "--force", "--verbose") == 0
        assert capsys.readouterr().out.startswith("0 images")
    assert manage("list-queued") == 0
    assert "No queued images" in capsys.readouterr().out


def test_manage_used_wrongly(manage: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("queue-image",), ("list-cached", "x"), ("dance",), ("help", "dance"), ()):
        with pytest.raises(SystemExit) as caught:
            manage(*words)
        assert caught.value.code == 2
    capsys.readouterr()
    assert manage("help") == 0
    assert all(command in capsys.readouterr().out for command in ("list-cached",))
    assert manage("help", "queue-image") == 0
    assert "IMAGE_ID" in capsys.readouterr().out
    assert manage("list-cached", "-S", "keystone") == 1
    assert manage("list-cached", "-H", "http://127.0.0.1:9") == 1
    assert manage("list-cached", "--os-auth-url", "http://127.0.0.1:9", "--os-username", "x") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("ERROR: ") for line in errors)


def test_prefetch_prune_clean(service: Service, api: Api, tmp_path: Path) -> None:
    images = [api.active(bytes(40))["id"] for _ in range(2)]
    for image in [*images, UNKNOWN]:
        (service.home / "cache" / "queue" / image).touch()
    assert fetch(service) == 0
    assert cached(service) == set(images)
    assert list((service.home / "cache" / "queue").iterdir()) == []
    with sqlite3.connect(service.database) as database:
        database.execute(
            "UPDATE cached_images SET last_accessed = '2020-01-01 00:00:00.000000' WHERE image_id = ?", images[:1]
        )

    small = tmp_path / "glance-cache.conf"
    small.write_text(service.conf.read_text().replace("image_cache_max_size = 100", "image_cache_max_size = 50"))
    assert cache.prune(["--config-file", str(small)]) == 0
    assert cached(service) == {images[1]}

    invalid, stalled, fresh = (service.home / "cache" / name for name in ("invalid/x", "incomplete/y", "incomplete/z"))
    for path in (invalid, stalled, fresh):
        path.write_bytes(b"x")
    os.utime(stalled, (1, 1))
    assert cache.clean(["--config-file", str(service.conf)]) == 0
    assert (invalid.exists(), stalled.exists(), fresh.exists()) == (False, False, True)


@pytest.mark.parametrize("command", [cache.prefetch, cache.prune, cache.clean])
def test_without_a_directory(command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "glance-cache.conf"
    conf.write_text(f"[database]\nconnection = sqlite:///{tmp_path}/db\n[DEFAULT]\nstores = file\n")
    assert command(["--config-file", str(conf)]) == 1
    assert "image_cache_dir" in capsys.readouterr().err
