"""`glance-replicator` between two real services, and to a directory and back."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import glimpse
from glimpse.cli import remote, replicator
from glimpse.cli.remote import Failure, Remote
from tests.conftest import ServiceFactory
from tests.journeys.client import Api, replace
from tests.journeys.content import MIB, noise
from tests.journeys.service import SINGLE_STORE, Service
from tests.rig.services import Glance, Glimpse

RULES = (
    "add_image", "modify_image", "upload_image", "delete_image", "get_image", "get_images", "download_image",
    "publicize_image", "communitize_image",
)  # fmt: skip


class Cloud:
    """A service, and a caller who may do everything there."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.place = service.url.removeprefix("http://")
        self.api = Api(service.url)

    def ids(self) -> set[str]:
        return {image["id"] for hidden in (True, False) for image in self.api.list(os_hidden=hidden, visibility="all")}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    service = Service(tmp_path_factory.mktemp("tables"), SINGLE_STORE)
    service.db_sync()
    return service.database


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[tuple[Cloud, Cloud]]:
    made = [Service(tmp_path_factory.mktemp("cloud") / name, SINGLE_STORE) for name in ("here", "there")]
    for service in made:
        service.db_sync(tables)
        service.start()
    pair = (Cloud(made[0]), Cloud(made[1]))
    yield pair
    for cloud in pair:
        cloud.api.close()
        cloud.service.kill()


@pytest.fixture
def clouds(both: tuple[Cloud, Cloud]) -> Iterator[tuple[Cloud, Cloud]]:
    """Two services without images."""
    yield both
    for cloud in both:
        for image_id in cloud.ids():
            cloud.api.patch(image_id, replace("protected", False))
            cloud.api.delete(image_id)


def fill(api: Api) -> list[str]:
    """One image of each kind that there is to copy; their ids."""
    api.create(name="no bytes")
    made = [
        api.active(noise(3 * MIB), name="ünï", tags=["a", "b"], os="linux", visibility="public", protected=True),
        api.active(b"", name="empty"),
        api.active(b"hidden", os_hidden=True, min_ram=5),
        api.active(b"community", visibility="community"),
    ]
    return [image["id"] for image in made]


def document(api: Api, image_id: str) -> dict[str, Any]:
    shown = api.show(image_id)
    return {name: shown[name] for name in shown if name not in ("created_at", "updated_at", "tags")} | {
        "tags": sorted(shown["tags"])
    }


def test_livecopy(clouds: tuple[Cloud, Cloud], capsys: pytest.CaptureFixture[str]) -> None:
    here, there = clouds
    made = fill(here.api)
    assert replicator.main(["livecopy", here.place, there.place]) == 0
    assert there.ids() == set(made)
    for image_id in made:
        assert document(there.api, image_id) == document(here.api, image_id)
        assert there.api.raw_download(image_id).content == here.api.raw_download(image_id).content
    capsys.readouterr()
    assert replicator.main(["livecopy", here.place, there.place]) == 0
    assert capsys.readouterr().out == "", "nothing is left to do"


def test_changes_follow(clouds: tuple[Cloud, Cloud], capsys: pytest.CaptureFixture[str]) -> None:
    here, there = clouds
    image = here.api.active(b"bytes", name="old", tags=["a"])
    assert replicator.main(["livecopy", here.place, there.place]) == 0
    here.api.patch(
        image["id"], replace("name", "new"), replace("tags", ["b", "c"]), {"op": "add", "path": "/a~1b", "value": "x"}
    )
    assert replicator.main(["compare", here.place, there.place]) == 0
    shown = capsys.readouterr().out
    assert f"{image['id']}: field name differs (source is new, destination is old)" in shown
    assert replicator.main(["livecopy", "-D", "name", here.place, there.place]) == 0
    assert there.api.show(image["id"])["name"] == "old"
    assert (there.api.show(image["id"])["a/b"], sorted(there.api.show(image["id"])["tags"])) == ("x", ["b", "c"])
    assert replicator.main(["livecopy", "--metaonly", here.place, there.place]) == 0
    assert document(there.api, image["id"]) == document(here.api, image["id"])


def test_metaonly_makes_no_images(clouds: tuple[Cloud, Cloud]) -> None:
    here, there = clouds
    here.api.active(b"bytes")
    assert replicator.main(["livecopy", "-m", here.place, there.place]) == 0
    assert there.ids() == set()


def test_compare_and_size(clouds: tuple[Cloud, Cloud], capsys: pytest.CaptureFixture[str]) -> None:
    here, there = clouds
    image = here.api.active(b"bytes", name="mine")
    here.api.create(name="queued")
    assert replicator.main(["compare", here.place, there.place]) == 0
    assert capsys.readouterr().out == f'Image {image["id"]} ("mine") entirely missing from the destination\n'
    assert there.ids() == set()
    assert replicator.main(["size", here.place]) == 0
    assert capsys.readouterr().out == "Total size is 5 bytes (5.0 B) across 1 images\n"


def test_dump_and_load(clouds: tuple[Cloud, Cloud], tmp_path: Path) -> None:
    here, there = clouds
    made, folder = fill(here.api), tmp_path / "dump"
    folder.mkdir()
    assert replicator.main(["dump", "-c", "1000", here.place, str(folder)]) == 0
    assert {path.name.removesuffix(".img") for path in folder.iterdir() if path.suffix} == set(made)
    assert json.loads((folder / made[0]).read_text())["name"] == "ünï"
    assert hashlib.md5((folder / f"{made[0]}.img").read_bytes()).hexdigest() == here.api.show(made[0])["checksum"]
    before = {path: path.stat().st_ino for path in folder.glob("*.img")}
    assert replicator.main(["dump", here.place, str(folder)]) == 0
    assert {path: path.stat().st_ino for path in folder.glob("*.img")} == before, "bytes are fetched once"
    for _ in range(2):
        assert replicator.main(["load", there.place, str(folder)]) == 0
        assert there.ids() == set(made)
    for image_id in made:
        assert document(there.api, image_id) == document(here.api, image_id)


def test_a_dump_that_was_spoilt_is_not_loaded(
    clouds: tuple[Cloud, Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = clouds
    spoilt, short, fine = (here.api.active(data)["id"] for data in (noise(MIB), noise(MIB), b"fine"))
    assert replicator.main(["dump", here.place, str(tmp_path)]) == 0
    for image_id, data in ((spoilt, bytes(MIB)), (short, b"short")):
        (tmp_path / f"{image_id}.img").write_bytes(data)
    assert replicator.main(["load", there.place, str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert spoilt in shown
    assert short in shown
    assert there.ids() == {fine}
    assert len(there.service.stored()) == 1


def test_a_source_that_spoils_bytes_is_noticed(
    clouds: tuple[Cloud, Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = clouds
    image = here.api.active(noise(MIB))
    [stored] = here.service.stored(image["id"])
    stored.write_bytes(bytes(MIB))
    assert replicator.main(["livecopy", here.place, there.place]) == 1
    assert there.ids() == set()
    assert there.service.stored() == []
    assert replicator.main(["dump", here.place, str(tmp_path)]) == 1
    assert list(tmp_path.glob("*.img")) == list(tmp_path.glob(".*")) == []
    assert image["id"] in capsys.readouterr().err


def test_a_target_that_keeps_other_bytes(clouds: tuple[Cloud, Cloud], capsys: pytest.CaptureFixture[str]) -> None:
    here, there = clouds
    image = here.api.active(b"one")
    other = there.api.ready(id=image["id"])
    there.api.upload(other["id"], b"two")
    assert replicator.main(["livecopy", here.place, there.place]) == 1
    assert "checksum" in capsys.readouterr().err
    assert there.api.download(image["id"]) == b"two"


def test_what_was_left_queued_is_finished(clouds: tuple[Cloud, Cloud]) -> None:
    here, there = clouds
    image = here.api.active(b"bytes", visibility="public", protected=True)
    there.api.ready(id=image["id"], visibility="private")
    assert replicator.main(["livecopy", here.place, there.place]) == 0
    assert document(there.api, image["id"]) == document(here.api, image["id"])


def test_an_id_that_was_used_there_does_not_stop_the_others(
    clouds: tuple[Cloud, Cloud], capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = clouds
    gone, fine = here.api.active(b"1"), here.api.active(b"2")
    there.api.ready(id=gone["id"])
    there.api.delete(gone["id"])
    assert replicator.main(["livecopy", here.place, there.place]) == 1
    assert "409" in capsys.readouterr().err
    assert there.ids() == {fine["id"]}


def test_killed_in_the_middle_and_run_again(clouds: tuple[Cloud, Cloud]) -> None:
    """kill -9 leaves at most a record without bytes, that nobody else sees; the next run brings the bytes."""
    here, there = clouds
    image = here.api.active(noise(8 * MIB), visibility="public")
    command = [sys.executable, "-m", "glimpse.cli.replicator", "livecopy", "-c", "64", here.place, there.place]
    env = {"PYTHONPATH": str(Path(glimpse.__file__).parents[1])}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size for path in there.service.stored()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there.api.wait_for_status(image["id"], "queued")
    assert there.api.show(image["id"])["visibility"] == "private"
    assert replicator.main(["livecopy", here.place, there.place]) == 0
    assert document(there.api, image["id"]) == document(here.api, image["id"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "nonsense"),
        (["size"], "server:port"),
        (["livecopy", "a:1"], "toserver:port"),
        (["size", "no port"], "no port"),
        (["size", "127.0.0.1:1"], "does not answer"),
        (["dump", "127.0.0.1:1", "/nowhere/at/all"], "no directory"),
        (["load", "127.0.0.1:1", "/nowhere/at/all"], "/nowhere/at/all"),
        (["size", "--chunksize", "0", "a:1"], "chunksize"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert replicator.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("ERROR: ")
    assert words in shown.err
    assert shown.err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert replicator.main([]) == replicator.main(["help"]) == 0
    assert "livecopy" in capsys.readouterr().out
    assert replicator.main(["help", "dump"]) == 0
    assert "<server:port> <path>" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../etc/passwd", "x", "", 7, None])
def test_an_id_never_leads_out_of_the_directory(name: Any) -> None:
    with pytest.raises(Failure):
        remote.check_id(name)


@pytest.mark.parametrize(
    "page",
    [
        {"images": [], "next": "@other.example.org/v2/images?marker=x"},
        {"images": ["x"]},
        {"images": [{"id": "../x", "status": "active", "size": 1}]},
        {"images": [{"id": "0c4a1d6e-57dd-4d83-b0a4-7d0c3a3c5cfb", "status": "active"}]},
    ],
)
def test_an_odd_server_is_told_of_and_not_followed(monkeypatch: pytest.MonkeyPatch, page: dict[str, Any]) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Remote, "_document", lambda self, method, path, fine: asked.append(path) or page)
    with pytest.raises(Failure):
        list(Remote("a:1", "secret").images())
    assert len(asked) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"id": "0c4a1d6e-57dd-4d83-b0a4-7d0c3a3c5cfb"}'])
def test_a_file_that_is_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "0c4a1d6e-57dd-4d83-b0a4-7d0c3a3c5cfb").write_text(text)
    assert replicator.main(["load", "127.0.0.1:1", str(tmp_path)]) == 1
    assert "no record" in capsys.readouterr().err


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each end gets its own; --token is for both."""
    file = tmp_path / "glance-replicator.conf"
    file.write_text("[DEFAULT]\nsourcetoken = one\ntargettoken = two\n")
    used: list[tuple[str, str]] = []
    monkeypatch.setattr(Remote, "__init__", lambda self, place, token: used.append((place, token)))
    monkeypatch.setattr(Remote, "images", lambda self: iter(()))
    replicator.main(["--config-file", str(file), "livecopy", "a:1", "b:2"])
    replicator.main(["--config-file", str(file), "--token", "three", "compare", "a:1", "b:2"])
    assert sorted(used) == [("a:1", "one"), ("a:1", "three"), ("b:2", "three"), ("b:2", "two")]


@pytest.mark.parametrize("back", [False, True])
def test_with_glance(
    glimpse_service: ServiceFactory[Glimpse], glance_service: ServiceFactory[Glance], tmp_path: Path, back: bool
) -> None:
    """In both directions."""
    policy = tmp_path / "policy.yaml"  # without identity Glance lets nobody create
    policy.write_text("".join(f'"{rule}": ""\n' for rule in RULES))
    services = (glimpse_service(), glance_service({"oslo_policy": {"policy_file": policy}}))
    source, target = reversed(services) if back else services
    here, there = Api(source.url), Api(target.url)
    made = [
        here.active(noise(3 * MIB), name="ünï", tags=["a", "b"], os="linux", visibility="public", protected=True)["id"],
        here.active(b"hidden", os_hidden=True, min_ram=5)["id"],
        here.active(b"community", visibility="community")["id"],
    ]
    places = [url.removeprefix("http://") for url in (source.url, target.url)]
    assert replicator.main(["livecopy", *places]) == 0
    for image_id in made:
        assert document(there, image_id) == document(here, image_id)
        assert there.download(image_id) == here.download(image_id)
    assert replicator.main(["livecopy", *places]) == 0
    here.close()
    there.close()
