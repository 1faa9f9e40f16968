"""Advisories about deleting, at once or later, and about what a deleted image leaves."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.journeys.client import OCTETS, Api, web_download
from tests.journeys.conftest import IMPORTS, USERS, signed_in, with_users
from tests.journeys.content import MIB, noise
from tests.journeys.service import Service, commands
from tests.journeys.site import Site
from tests.journeys.test_crash import begin_upload, wait_for_empty_stores
from tests.journeys.test_import_failures import check_gone, check_nothing_left
from tests.journeys.wire import Wire

signed_up = contextmanager(signed_in)


@pytest.mark.parametrize("delayed", [False, True])
def test_ossa_2012_017_cve_2012_4573_nobody_deletes_for_another(
    own: Callable[..., Service], tmp_path: Path, delayed: bool
) -> None:
    """OSSA-2012-017: a refused DELETE has no side effect, whichever way things are deleted."""
    users = with_users(tmp_path, USERS)
    service = own(
        {**users, "DEFAULT": {**users["DEFAULT"], "delayed_delete": delayed, "scrub_time": 0, "wakeup_time": 1}}
    )
    with signed_up(service, USERS) as user:
        for visibility, code in (("public", 403), ("community", 403), ("shared", 404), ("private", 404)):
            image = user("admin").active(b"bytes", visibility=visibility)
            assert user("bob").raw_delete(image["id"]).status_code == code
            assert user("carol").raw_delete(image["id"]).status_code in (403, 404)
            time.sleep(0.2)
            assert user("admin").show(image["id"]) == image
            assert user("admin").download(image["id"]) == b"bytes"


def test_ossa_2015_003_cve_2014_9623_deleted_in_mid_upload(api: Api, local: Service) -> None:
    """OSSA-2015-003: an upload whose image is deleted ends, and keeps nothing that no quota counts."""
    image = api.ready()
    with begin_upload(api, local, image["id"], chunked=True) as wire:
        api.delete(image["id"])
        deadline = time.monotonic() + 45
        with contextlib.suppress(OSError):  # at some moment the service hangs up
            while local.stored(image["id"]):
                assert time.monotonic() < deadline, "it goes on for ever"
                wire.chunk(noise(1 << 16))
                time.sleep(0.2)
    check_nothing_left(local, image["id"])
    assert api.raw_show(image["id"]).status_code == 404


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2, 0.6])
@pytest.mark.parametrize("method", ["glance-direct", "web-download", "copy-image"])
def test_ossa_2015_004_cve_2014_9684_deleted_in_mid_import(
    importer: Api, importing: Service, site: Site, method: str, moment: float
) -> None:
    """OSSA-2015-004 (and CVE-2015-1881): whenever the image of an import is deleted, no byte stays anywhere."""
    site.midway = (MIB, lambda: time.sleep(0.3))
    data = noise(3 * MIB)
    if method == "web-download":
        image = importer.ready()
        importer.order(image["id"], web_download(site.add(data)), all_stores=True)
    else:
        image = importer.staged(data) if method == "glance-direct" else importer.active(data)
        importer.order(image["id"], method, all_stores=True)
    time.sleep(moment)
    importer.delete(image["id"])
    check_gone(importer, importing, image["id"])


def test_ossa_2015_013_cve_2015_3289_deleted_and_the_service_dies(own: Callable[..., Service], site: Site) -> None:
    """OSSA-2015-013: the same, when the process dies before it can clean up."""
    service, go = own(IMPORTS), threading.Event()
    site.midway = (MIB, lambda: go.wait(60))
    with closing(Api(service.url)) as api:
        image, staged = api.ready(), api.staged(noise(MIB))
        api.order(image["id"], web_download(site.add(noise(3 * MIB))), all_stores=True)
        deadline = time.monotonic() + 10
        while not service.stored(image["id"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        api.order(staged["id"], "glance-direct", all_stores=True)
        api.delete(image["id"])
        api.delete(staged["id"])
    service.kill()
    go.set()
    service.start()
    with closing(Api(service.url)) as api:
        for image_id in (image["id"], staged["id"]):
            check_gone(api, service, image_id, 60)


def test_ossa_2015_020_cve_2015_5286_who_may_no_more_in_mid_upload(own: Callable[..., Service], tmp_path: Path) -> None:
    """OSSA-2015-020: cleaning up needs no token, so an expired one leaves nothing behind."""
    users = with_users(tmp_path, USERS)
    service = own(users)
    with signed_up(service, USERS) as user:
        image = user("alice").ready()
        wire = Wire(service.url)
        basic = user("alice").http.auth
        assert basic is not None
        header = next(basic.sync_auth_flow(user("alice").http.build_request("GET", "/"))).headers["Authorization"]
        size = {"Content-Length": str(8 * MIB), "Authorization": header}
        wire.head("PUT", f"/v2/images/{image['id']}/file", {**OCTETS, **size})
        wire.send(noise(2 * MIB))
        user("alice").wait_for_status(image["id"], "saving")
        passwords = Path(str(users["DEFAULT"]["http_basic_auth_user_file"]))
        lines = passwords.read_text().splitlines(keepends=True)
        passwords.write_text("".join(line for line in lines if not line.startswith("alice:")))
        user("admin").delete(image["id"])
        wire.close()
        wait_for_empty_stores(service)


@pytest.fixture
def scrubbed(own: Callable[..., Service]) -> Iterator[tuple[Service, Api]]:
    """A service that erases what was deleted a second ago."""
    service = own({"DEFAULT": {"delayed_delete": True, "scrub_time": 1, "wakeup_time": 1}})
    with closing(Api(service.url)) as api:
        yield service, api


def test_ossa_2012_017_cve_2012_5482_delayed_is_deleted_all_the_same(scrubbed: tuple[Service, Api]) -> None:
    """OSSA-2012-017, second part: an image that waits for the scrubber is gone for everybody, and then for good."""
    service, api = scrubbed
    image = api.active(b"content")
    api.delete(image["id"])
    assert api.raw_show(image["id"]).status_code == api.raw_download(image["id"]).status_code == 404
    assert image["id"] not in str(api.list())
    assert api.raw_delete(image["id"]).status_code == 404
    check_nothing_left(service, image["id"], 20)


def test_ossn_0075_cve_2016_4383_a_deleted_id_is_not_reused(own: Callable[..., Service]) -> None:
    """OSSN-0075: who takes the id of a deleted image gets what others boot; also after its rows were purged."""
    service = own()
    with closing(Api(service.url)) as api:
        image = api.active(b"good")
        api.delete(image["id"])
        assert api.raw_create(id=image["id"]).status_code == 409
        purge = (commands() / "glance-manage", "--config-file", service.conf, "db", "purge", "--age_in_days", "0")
        subprocess.run(purge, check=True, cwd=service.home, capture_output=True, timeout=60)
        assert api.raw_create(id=image["id"]).status_code == 409
