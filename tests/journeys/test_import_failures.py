"""Imports that fail: every one of them ends cleanly (spec 2.3).

The original leaves many of them half done: an image stuck in `importing`, a lock that nobody releases for an hour,
bytes that no record names.
"""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .client import Api, Image, Task, web_download
from .conftest import IMPORTS, USERS, signed_in, with_users
from .content import MIB, noise, qcow2, vmdk
from .service import Service
from .site import Site
from .test_disk_full import mounted
from .test_import import COPY, DIRECT, held

pytestmark = pytest.mark.better_than_glance

INTERNAL = "Task failed due to Internal Error"  # what the original says of almost everything


def ordered(api: Api, site: Site, method: str, data: bytes, /, **fields: Any) -> tuple[Image, Any]:
    """An image that is ready for an import of these bytes, and the method as the call wants it."""
    if method == DIRECT:
        return api.staged(data, **fields), DIRECT
    return api.ready(**fields), web_download(site.add(data))


def check_queued(api: Api, service: Service, image: Image, task: Task) -> None:
    """The import has failed, nothing is left of it, and the image takes another one."""
    assert (task["status"], task["result"]) == ("failure", None)
    assert task["message"] not in ("", INTERNAL), "the owner learns what was wrong"
    shown = api.show(image["id"])
    assert (shown["status"], shown["size"], shown["virtual_size"]) == ("queued", None, None)
    assert shown["checksum"] is shown["os_hash_algo"] is shown["os_hash_value"] is None
    assert shown["locations"] == []
    assert "stores" not in shown
    assert shown["os_glance_importing_to_stores"] == ""
    assert not {"os_glance_import_task", "os_glance_stage_host"} & shown.keys()
    check_nothing_left(service, image["id"])
    assert api.raw_download(image["id"]).status_code == 204


def check_nothing_left(service: Service, image_id: str, seconds: float = 10) -> None:
    """No store and no staging directory has a byte of it."""
    deadline = time.monotonic() + seconds
    while left := service.stored(image_id):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def check_again(api: Api, site: Site, image: Image, data: bytes = b"at last") -> None:
    """Another import works."""
    shown, task = api.imported(image["id"], web_download(site.add(data)), all_stores=True)
    assert (shown["status"], task["status"]) == ("active", "success"), task["message"]
    assert shown["os_glance_failed_import"] == ""
    assert api.download(image["id"]) == data


# --- content that is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", [{}, {"all_stores": True}, {"all_stores": True, "all_stores_must_succeed": False}])
@pytest.mark.parametrize("method", [DIRECT, "web-download"])
def test_not_what_it_is_said_to_be(
    importer: Api, importing: Service, site: Site, method: str, wish: dict[str, Any]
) -> None:
    image, how = ordered(importer, site, method, noise(2 * MIB), disk_format="qcow2")
    _, task = importer.imported(image["id"], how, **wish)
    check_queued(importer, importing, image, task)
    check_again(importer, site, image, qcow2())


@pytest.mark.parametrize(
    ("disk_format", "data"),
    [
        ("qcow2", qcow2(backing=512)),
        ("raw", qcow2(backing=512)),
        ("qcow2", qcow2(features=4)),
        ("raw", qcow2(features=4)),
        ("qcow2", qcow2(features=16)),
        ("vmdk", vmdk("monolithicFlat")),
        ("vmdk", vmdk(extent="/etc/passwd")),
    ],
)
@pytest.mark.parametrize("method", [DIRECT, "web-download"])
def test_unsafe(importer: Api, importing: Service, site: Site, method: str, disk_format: str, data: bytes) -> None:
    image, how = ordered(importer, site, method, data, disk_format=disk_format)
    _, task = importer.imported(image["id"], how, all_stores=True)
    check_queued(importer, importing, image, task)
    assert "passwd" not in task["message"]


@pytest.mark.parametrize("announced", [True, False])
def test_too_much(importer: Api, importing: Service, site: Site, announced: bool) -> None:
    """`image_size_cap` holds for what comes from the web, whether its server says how much it will be or not."""
    image, url = importer.ready(), site.add(bytes(5 * MIB))
    if not announced:
        site.announced[url.removeprefix(site.url)] = None
    _, task = importer.imported(image["id"], web_download(url), all_stores=True)
    check_queued(importer, importing, image, task)
    check_again(importer, site, image)


def test_more_than_the_project_may_keep(own: Callable[..., Service], tmp_path: Path, site: Site) -> None:
    service = own({**IMPORTS, "DEFAULT": {**IMPORTS["DEFAULT"], "user_storage_quota": "3MB"}})
    with closing(Api(service.url)) as api:
        image = api.ready()
        _, task = api.imported(image["id"], web_download(site.add(noise(2 * MIB))), all_stores=True)
        check_queued(api, service, image, task)
        kept, _ = api.imported(image["id"], web_download(site.add(noise(2 * MIB))))
        assert kept["status"] == "active"
        other, how = ordered(api, site, DIRECT, noise(2 * MIB))
        _, task = api.imported(other["id"], how)
        assert task["status"] == "failure"
        assert api.show(other["id"])["status"] in ("queued", "uploading")
        _, task = api.imported(image["id"], COPY, stores=["fast"])
        assert (task["status"], api.show(image["id"])["status"]) == ("failure", "active")
        assert service.stored(image["id"]) == [service.home / "images" / image["id"]]


# --- sources that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [204, 304, 401, 403, 404, 410, 418, 500, 503])
def test_answers_that_are_no_image(importer: Api, importing: Service, site: Site, code: int) -> None:
    image, url = importer.ready(), site.add(b"an error page, not an image")
    site.codes[url.removeprefix(site.url)] = code
    _, task = importer.imported(image["id"], web_download(url), all_stores=True)
    check_queued(importer, importing, image, task)
    del site.codes[url.removeprefix(site.url)]
    check_again(importer, site, image)


def test_cut_short(importer: Api, importing: Service, site: Site) -> None:
    """Half an image is none."""
    image, url = importer.ready(), site.add(noise(2 * MIB))
    site.announced[url.removeprefix(site.url)] = 3 * MIB
    _, task = importer.imported(image["id"], web_download(url), all_stores=True)
    check_queued(importer, importing, image, task)


def test_broken_off(importer: Api, importing: Service, site: Site) -> None:
    def break_off() -> None:
        raise ConnectionResetError

    site.midway = (MIB, break_off)
    image, url = importer.ready(), site.add(noise(2 * MIB))
    _, task = importer.imported(image["id"], web_download(url), all_stores=True)
    check_queued(importer, importing, image, task)


def test_nobody_there(importer: Api, importing: Service, site: Site) -> None:
    """The caller does not learn which ports of which hosts are open (OSSN-0078)."""
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        def say_nonsense() -> None:
            for _ in range(2):
                connection, _ = silent.accept()
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.close()

        threading.Thread(target=say_nonsense, daemon=True).start()
        messages = set()
        urls = [f"http://127.0.0.1:{one.getsockname()[1]}/x" for one in (closed, silent)]
        for url in (*urls, f"{site.url}/nothing", site.moved(urls[0])):
            image = importer.ready()
            _, task = importer.imported(image["id"], web_download(url))
            check_queued(importer, importing, image, task)
            messages.add(task["message"])
    assert len(messages) == 1
    assert "127.0.0.1" not in messages.pop()


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://localhost:1/x", "http://169.254.169.254/", "gopher:x"]
)
def test_sent_to_a_forbidden_place(importer: Api, importing: Service, site: Site, target: str) -> None:
    image = importer.ready()
    _, task = importer.imported(image["id"], web_download(site.moved(target)))
    check_queued(importer, importing, image, task)
    assert "passwd" not in task["message"]


def test_sent_in_a_circle(importer: Api, importing: Service, site: Site) -> None:
    image, url = importer.ready(), site.moved("")
    site.pages[url.removeprefix(site.url)] = url.encode()
    _, task = importer.imported(image["id"], web_download(url))
    check_queued(importer, importing, image, task)
    assert len(site.asked) < 30


# --- stores that fail ------------------------------------------------------------------------------------------------


@pytest.fixture
def two(own: Callable[..., Service]) -> Service:
    """A service of this test's own, whose stores may break."""
    return own(IMPORTS)


@pytest.fixture
def api(two: Service) -> Iterator[Api]:
    caller = Api(two.url)
    yield caller
    caller.close()


class Broken:
    """A store that takes nothing while this lasts: a file is where its directory should be."""

    def __init__(self, service: Service, *names: str) -> None:
        self._folders = [service.home / {"fs": "images", "fast": "fast"}[name] for name in names]

    def __enter__(self) -> None:
        for folder in self._folders:
            folder.rename(folder.with_suffix(".away"))
            folder.write_text("not a directory")

    def __exit__(self, *_: object) -> None:
        for folder in self._folders:
            folder.unlink()
            folder.with_suffix(".away").rename(folder)


@pytest.mark.parametrize("wish", [{"stores": ["fast"]}, {"all_stores": True}])
def test_staged_bytes_wait_for_a_broken_store(two: Service, api: Api, wish: dict[str, Any]) -> None:
    """They were fine: nobody has to send them again."""
    data = noise(MIB)
    image = api.staged(data)
    with Broken(two, "fast"):
        _, task = api.imported(image["id"], DIRECT, **wish)
        shown = api.show(image["id"])
    assert task["status"] == "failure"
    assert task["message"] not in ("", INTERNAL)
    assert (shown["status"], shown["size"], shown["locations"]) == ("uploading", len(data), [])
    assert shown["checksum"] is shown["os_hash_value"] is None
    assert shown["os_glance_importing_to_stores"] == ""
    assert "fast" in shown["os_glance_failed_import"].split(",")
    assert [path.read_bytes() for path in two.stored(image["id"])] == [data]
    assert two.stored(image["id"]) == [two.home / "staging" / image["id"]]
    assert api.raw_stage(image["id"], b"other").status_code == 409
    shown, task = api.imported(image["id"], DIRECT, **wish)
    assert (shown["status"], task["status"], shown["os_glance_failed_import"]) == ("active", "success", "")
    assert api.download(image["id"]) == data
    assert two.home / "staging" / image["id"] not in two.stored(image["id"])


@pytest.mark.parametrize("wish", [{"stores": ["fast"]}, {"all_stores": True}])
def test_from_the_web_into_a_broken_store(two: Service, api: Api, site: Site, wish: dict[str, Any]) -> None:
    image, how = ordered(api, site, "web-download", noise(MIB))
    with Broken(two, "fast"):
        _, task = api.imported(image["id"], how, **wish)
        check_queued(api, two, image, task)
        assert "fast" in api.show(image["id"])["os_glance_failed_import"].split(",")
    check_again(api, site, image)


@pytest.mark.parametrize("method", [DIRECT, "web-download"])
def test_one_broken_store_of_two_may_fail(two: Service, api: Api, site: Site, method: str) -> None:
    data = noise(MIB)
    image, how = ordered(api, site, method, data)
    with Broken(two, "fast"):
        shown, task = api.imported(image["id"], how, all_stores=True, all_stores_must_succeed=False)
    assert (task["status"], shown["status"], shown["stores"]) == ("success", "active", "fs")
    assert (shown["os_glance_failed_import"], shown["os_glance_importing_to_stores"]) == ("fast", "")
    assert two.stored(image["id"]) == [two.home / "images" / image["id"]]
    assert api.download(image["id"]) == data
    shown, task = api.imported(image["id"], COPY, stores=["fast"])
    assert (task["status"], shown["os_glance_failed_import"]) == ("success", "")
    assert sorted(shown["stores"].split(",")) == ["fast", "fs"]


@pytest.mark.parametrize("must_succeed", [True, False])
@pytest.mark.parametrize("method", [DIRECT, "web-download"])
def test_all_stores_are_broken(two: Service, api: Api, site: Site, method: str, must_succeed: bool) -> None:
    data = noise(MIB)
    image, how = ordered(api, site, method, data)
    with Broken(two, "fs", "fast"):
        shown, task = api.imported(image["id"], how, all_stores=True, all_stores_must_succeed=must_succeed)
    assert task["status"] == "failure"
    if method == DIRECT and must_succeed:
        assert shown["status"] == "uploading"
        assert two.stored(image["id"]) == [two.home / "staging" / image["id"]]
        assert api.imported(image["id"], DIRECT)[0]["status"] == "active"
    else:
        check_queued(api, two, image, task)
        check_again(api, site, image)


def test_a_copy_into_a_broken_store(two: Service, api: Api) -> None:
    data = noise(MIB)
    image = api.active(data)
    for must_succeed, outcome in ((True, "failure"), (False, "failure")):
        with Broken(two, "fast"):
            shown, task = api.imported(image["id"], COPY, stores=["fast"], all_stores_must_succeed=must_succeed)
        assert (task["status"], shown["status"], shown["stores"]) == (outcome, "active", "fs")
        assert (shown["os_glance_failed_import"], shown["os_glance_importing_to_stores"]) == ("fast", "")
        assert {name: shown[name] for name in ("checksum", "size")} == {
            name: image[name] for name in ("checksum", "size")
        }
        assert two.stored(image["id"]) == [two.home / "images" / image["id"]]
        assert api.download(image["id"]) == data
    shown, task = api.imported(image["id"], COPY, stores=["fast"])
    assert (task["status"], shown["os_glance_failed_import"]) == ("success", "")


@pytest.mark.parametrize(
    ("must_succeed", "stores", "outcome", "status", "failed"),
    [
        (True, ["web"], "failure", "uploading", "web"),
        (True, ["fs", "web"], "failure", "uploading", "fs,web"),
        (False, ["web"], "failure", "queued", "web"),
        (False, ["fs", "web"], "success", "active", "web"),
    ],
)
def test_a_store_that_is_only_read_from(
    importer: Api, must_succeed: bool, stores: list[str], outcome: str, status: str, failed: str
) -> None:
    image = importer.staged()
    shown, task = importer.imported(image["id"], DIRECT, stores=stores, all_stores_must_succeed=must_succeed)
    assert (task["status"], shown["status"], shown["os_glance_failed_import"]) == (outcome, status, failed)
    assert shown.get("stores") == ("fs" if status == "active" else None)


@pytest.mark.parametrize("stores", [["fast", "fast"], ["fast", "fs", "fast"]])
@pytest.mark.parametrize("method", [DIRECT, COPY])
def test_a_store_that_is_named_twice(importer: Api, importing: Service, method: str, stores: list[str]) -> None:
    image = importer.staged() if method == DIRECT else importer.active()
    stores = [store for store in stores if method == DIRECT or store != "fs"]
    shown, task = importer.imported(image["id"], method, stores=stores)
    assert (task["status"], shown["status"]) == ("success", "active"), task["message"]
    wanted = {*stores, *(["fs"] if method == COPY else [])}
    assert sorted(shown["stores"].split(",")) == sorted(wanted)
    assert len(importing.stored(image["id"])) == len(wanted)
    assert shown["os_glance_importing_to_stores"] == ""


def test_a_copy_of_an_image_that_is_switched_off_meanwhile(importer: Api, importing: Service, site: Site) -> None:
    image, go = importer.ready(), threading.Event()
    importer.patch(
        image["id"], {"op": "add", "path": "/locations/-", "value": {"url": site.add(noise(MIB)), "metadata": {}}}
    )
    site.midway = (1000, lambda: go.wait(30))
    importer.order(image["id"], COPY, all_stores=True)
    assert importer.request("POST", f"/v2/images/{image['id']}/actions/deactivate").status_code == 204
    go.set()
    shown, task = importer.settled(image["id"])
    assert (task["status"], shown["status"], shown["stores"]) == ("failure", "deactivated", "web")
    check_nothing_left(importing, image["id"])


def test_a_copy_into_the_same_place(own: Callable[..., Service]) -> None:
    """Two stores that share their directory by mistake: the copy fails, and the image keeps its bytes."""
    service = own({"fast": {"filesystem_store_datadir": "{home}/images"}})
    api = Api(service.url)
    image = api.active(b"the only ones")
    assert api.imported(image["id"], "copy-image", stores=["fast"])[1]["status"] == "failure"
    assert api.download(image["id"]) == b"the only ones"
    api.close()


def test_a_copy_whose_source_is_gone(two: Service, api: Api) -> None:
    image = api.active(noise(MIB))
    path = two.home / "images" / image["id"]
    path.rename(two.home / "elsewhere")
    shown, task = api.imported(image["id"], COPY, stores=["fast"])
    assert (task["status"], shown["status"], two.stored(image["id"])) == ("failure", "active", [])
    (two.home / "elsewhere").rename(path)
    assert api.imported(image["id"], COPY, stores=["fast"])[1]["status"] == "success"


@pytest.mark.parametrize("damaged", [noise(MIB, 1), noise(MIB)[:-1], b""])
def test_a_copy_of_damaged_bytes(two: Service, api: Api, damaged: bytes) -> None:
    """What the record says of its bytes holds for each copy."""
    image = api.active(noise(MIB))
    (two.home / "images" / image["id"]).write_bytes(damaged)
    shown, task = api.imported(image["id"], COPY, stores=["fast"])
    assert (task["status"], shown["stores"]) == ("failure", "fs")
    assert two.stored(image["id"]) == [two.home / "images" / image["id"]]


@pytest.fixture
def full(own: Callable[..., Service], tmp_path: Path) -> Iterator[Service]:
    """A service whose store `fast` has room for about 4 MB; for who cannot mount one, for nothing."""
    small = tmp_path / "small"
    room = mounted(small)
    service = own({**IMPORTS, "DEFAULT": {**IMPORTS["DEFAULT"], "image_size_cap": 16 * MIB}})
    service.kill()
    if room:
        service.configure({"fast": {"filesystem_store_datadir": f"{small}/images"}})
    service.start()
    try:
        if not room:
            with Broken(service, "fast"):
                yield service
        else:
            yield service
    finally:
        service.kill()
        if room:
            subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_full_store(full: Service, tmp_path: Path, site: Site) -> None:
    """One store is full in the middle of the bytes, the other has all of them by then."""
    data = noise(8 * MIB)

    def in_small() -> list[Path]:
        return [path for path in (tmp_path / "small").rglob("*") if path.is_file()]

    with closing(Api(full.url)) as api:
        image, how = ordered(api, site, "web-download", data)
        _, task = api.imported(image["id"], how, all_stores=True)
        check_queued(api, full, image, task)
        assert in_small() == []
        shown, task = api.imported(image["id"], how, all_stores=True, all_stores_must_succeed=False)
        assert (shown["stores"], shown["os_glance_failed_import"], task["status"]) == ("fs", "fast", "success")
        assert in_small() == []
        assert api.download(image["id"]) == data


# --- deleted meanwhile -----------------------------------------------------------------------------------------------


def check_gone(api: Api, service: Service, image_id: str, seconds: float = 25) -> None:
    """The image, and all that an import has made for it; the task has ended."""
    assert api.raw_show(image_id).status_code == 404
    deadline = time.monotonic() + seconds
    with closing(sqlite3.connect(service.database)) as database:
        query = "SELECT count(*) FROM tasks WHERE image_id = ? AND status IN ('pending', 'processing')"
        while database.execute(query, (image_id,)).fetchone() != (0,):
            assert time.monotonic() < deadline, "the task has no end"
            time.sleep(0.1)
        query = "SELECT name FROM image_properties WHERE image_id = ? AND deleted = 0"
        assert database.execute(query, (image_id,)).fetchall() == []
        query = "SELECT count(*) FROM image_locations WHERE image_id = ? AND deleted = 0"
        assert database.execute(query, (image_id,)).fetchone() == (0,)
    check_nothing_left(service, image_id)


@pytest.mark.parametrize("phase", ["before_head", "before", "midway"])
def test_deleted_during_a_download(importer: Api, importing: Service, site: Site, phase: str) -> None:
    go = threading.Event()
    setattr(site, phase, (MIB, lambda: go.wait(30)) if phase == "midway" else lambda path: go.wait(30))
    image = importer.ready()
    importer.order(image["id"], web_download(site.add(noise(3 * MIB))), all_stores=True)
    importer.wait_for_status(image["id"], "importing")
    deadline = time.monotonic() + 10
    while not site.asked:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    importer.delete(image["id"])
    # nobody waits for a server that says nothing
    check_gone(importer, importing, image["id"])
    go.set()
    time.sleep(0.3)
    assert importing.stored(image["id"]) == []


def test_deleted_and_the_download_goes_on(importer: Api, importing: Service, site: Site) -> None:
    go = threading.Event()
    site.midway = (MIB, lambda: go.wait(30))
    image = importer.ready()
    importer.order(image["id"], web_download(site.add(noise(3 * MIB))), all_stores=True)
    importer.wait_for_status(image["id"], "importing")
    importer.delete(image["id"])
    go.set()
    check_gone(importer, importing, image["id"])


@pytest.mark.parametrize("method", [DIRECT, "web-download"])
def test_deleted_at_any_moment(importer: Api, importing: Service, site: Site, method: str) -> None:
    data, images = noise(3 * MIB), []
    for number in range(20):
        image, how = ordered(importer, site, method, data)
        images.append(image["id"])
        importer.order(image["id"], how, all_stores=True)
        time.sleep(number * 0.01)
        assert importer.raw_delete(image["id"]).status_code == 204
    for image_id in images:
        check_gone(importer, importing, image_id)


def test_deleted_during_a_copy(importer: Api, importing: Service, site: Site) -> None:
    image = importer.ready()
    place = {"url": site.add(noise(3 * MIB)), "metadata": {}}
    importer.patch(image["id"], {"op": "add", "path": "/locations/-", "value": place})
    go = threading.Event()
    site.midway = (MIB, lambda: go.wait(30))
    importer.order(image["id"], COPY, all_stores=True)
    time.sleep(0.5)
    importer.delete(image["id"])
    go.set()
    check_gone(importer, importing, image["id"])


def test_copies_deleted_at_any_moment(importer: Api, importing: Service) -> None:
    data, images = noise(3 * MIB), []
    for number in range(12):
        image = importer.active(data)
        images.append(image["id"])
        importer.order(image["id"], COPY, all_stores=True)
        time.sleep(number * 0.01)
        importer.delete(image["id"])
    for image_id in images:
        check_gone(importer, importing, image_id)


def test_a_slow_server_keeps_nobody_waiting(importer: Api, importing: Service, site: Site) -> None:
    """Others import meanwhile, and the caller can think again."""
    go = held(site)
    slow = [importer.ready() for _ in range(4)]
    for image in slow:
        importer.order(image["id"], web_download(site.add(noise(MIB))))
    for image in slow:
        importer.wait_for_status(image["id"], "importing")
    staged = importer.staged(b"content")
    began = time.monotonic()
    assert importer.imported(staged["id"], DIRECT)[0]["status"] == "active"
    assert time.monotonic() - began < 5
    go.set()
    for image in slow:
        assert importer.settled(image["id"])[0]["status"] == "active"


# --- and who learns of it --------------------------------------------------------------------------------------------


def test_the_reason_is_for_the_owner(own: Callable[..., Service], tmp_path: Path, site: Site) -> None:
    service = own(with_users(tmp_path, USERS) | {"import_filtering_opts": IMPORTS["import_filtering_opts"]})
    calls = signed_in(service, USERS)
    user = next(calls)
    image = user("alice").ready(disk_format="qcow2", visibility="community")
    _, task = user("alice").imported(image["id"], web_download(site.add(noise(MIB))))
    assert "raw" in task["message"]
    assert user("bob").tasks(image["id"]) == []
    assert user("admin").tasks(image["id"])[0]["message"] == task["message"]
    next(calls, None)


def test_no_address_reaches_the_log_of_a_task(importer: Api, site: Site) -> None:
    """A URL may hold a password; the caller's own input is kept, as they gave it."""
    image = importer.ready()
    url = site.url.replace("http://", "http://me:s3cret@") + "/none"
    _, task = importer.imported(image["id"], web_download(url))
    assert task["status"] == "failure"
    assert "s3cret" not in str(task["message"])
