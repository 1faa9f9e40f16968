"""Advisories about where the bytes of images are, and who may say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.client import Api, add, remove, replace
from tests.journeys.service import Service
from tests.journeys.site import Site
from tests.journeys.test_location_api import post, tasks

Who = Callable[[str], Api]

FILES = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    " file:///etc/passwd",
    "file:/etc/passwd",
    "file%3A///etc/passwd",
    "file://localhost/etc/passwd",
]


def check_refused(placer: Who, url: str) -> None:
    """Neither a PATCH nor the location API takes the URL, whoever comes with it; the image is as before."""
    for name in ("alice", "admin"):
        caller = placer(name)
        image = caller.ready()
        for operation in (
            add("locations/-", {"url": url, "metadata": {}}),
            replace("locations", [{"url": url, "metadata": {}}]),
        ):
            answer = caller.raw_patch(image["id"], [operation])
            assert (answer.status_code, "root:" in answer.text) == (400, False)
        assert post(caller, image["id"], url).status_code == 403
        assert caller.raw_create(locations=[{"url": url, "metadata": {}}]).status_code in (400, 403)
        assert caller.show(image["id"]) == image
        assert tasks(caller, image["id"]) == []
        assert caller.raw_download(image["id"]).status_code == 204
        caller.delete(image["id"])
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize("url", [*FILES, "swift+config://ref/container/object", "cinder://volume", "rbd://pool/x"])
def test_ossa_2014_041_cve_2014_9493_file_locations(placer: Who, url: str) -> None:
    """OSSA-2014-041: a location in a file of the host is read by a download, and removed by a delete."""
    check_refused(placer, url)


@pytest.mark.parametrize("url", ["filesystem:///etc/passwd", "FileSystem:///etc/passwd", "filesystem:/etc/passwd"])
def test_ossa_2015_002_cve_2015_1195_filesystem_locations(placer: Who, url: str) -> None:
    """OSSA-2015-002: the other name of the same scheme."""
    check_refused(placer, url)


def test_ossa_2014_041_cve_2014_9493_another_image_s_file(placer: Who, open_places: Service) -> None:
    """OSSA-2014-041: nor the file of somebody else's image, of which the URL is well known."""
    secret = placer("bob").active(b"secret", visibility="private")
    url = (open_places.home / "images" / secret["id"]).as_uri()
    check_refused(placer, url)
    assert placer("bob").download(secret["id"]) == b"secret"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/;touch${IFS}{path}",
        "http://127.0.0.1/$(touch {path})",
        "http://127.0.0.1/`touch {path}`",
        "sheepdog://127.0.0.1:7000:x;touch {path}",
        "http://127.0.0.1/x\n touch {path}",
        "file:///|touch {path}",
        "http://127.0.0.1/x\x00{path}",
    ],
)
def test_ossa_2014_012_cve_2014_0162_shell_in_a_location(placer: Who, tmp_path: Path, url: str) -> None:
    """OSSA-2014-012: no part of a location ever reaches a shell."""
    mark = tmp_path / "touched"
    nova = placer("nova")
    image = nova.ready()
    hostile = url.replace("{path}", str(mark))
    answer = nova.raw_patch(image["id"], [add("locations/-", {"url": hostile, "metadata": {}})])
    assert answer.status_code in (200, 400)
    assert post(nova, image["id"], hostile).status_code in (202, 400, 409)
    nova.raw_download(image["id"])
    nova.raw_delete(image["id"])
    assert not mark.exists()


def test_ossa_2016_006_cve_2016_0757_an_active_image_is_never_emptied(placer: Who, site: Site) -> None:
    """OSSA-2016-006: without its last location it would be queued again, and take other bytes."""
    alice, admin = placer("alice"), placer("admin")
    image = alice.active(b"content")
    empty: list[dict[str, Any]] = [replace("locations", []), remove("locations/0"), remove("locations/-")]
    for operation in (*empty, replace("locations", [{"url": site.add(b"other"), "metadata": {}}])):
        for caller in (alice, admin):
            assert caller.raw_patch(image["id"], [operation]).status_code in (400, 403)
    assert admin.request("DELETE", f"/v2/stores/fs/{image['id']}").status_code == 403
    shown = alice.show(image["id"])
    assert (shown["status"], shown["checksum"]) == ("active", image["checksum"])
    assert alice.raw_upload(image["id"], b"other").status_code == 409
    assert alice.raw_stage(image["id"], b"other").status_code == 409
    assert alice.download(image["id"]) == b"content"


def test_ossn_0065_bytes_are_not_swapped(placer: Who, site: Site) -> None:
    """OSSN-0065: who could replace a location could give others something else than they trust."""
    alice = placer("alice")
    image = alice.ready()
    first, other = site.add(b"content"), site.add(b"another")
    alice.patch(image["id"], add("locations/-", {"url": first, "metadata": {}}))
    for operation in (
        replace("locations", [{"url": other, "metadata": {}}]),
        replace("locations/0", {"url": other, "metadata": {}}),
        remove("locations/0"),
    ):
        assert alice.raw_patch(image["id"], [operation]).status_code in (400, 403)
    assert alice.download(image["id"]) == b"content"


def test_ossn_0090_cve_2022_4134_locations_are_not_for_users(user: Who, site: Site) -> None:
    """OSSN-0090: as they come, services show no location and take none; the new calls are for other services."""
    alice = user("alice")
    image = alice.active(b"content")
    assert not {"locations", "direct_url"} & image.keys()
    for caller in (alice, user("admin")):
        assert not {"locations", "direct_url"} & caller.show(image["id"]).keys()
        assert caller.raw_patch(image["id"], [replace("locations", [])]).status_code == 403
        assert caller.raw_patch(image["id"], [add("locations/-", {"url": site.add(b"x"), "metadata": {}})]).is_error
    assert alice.get(f"/v2/images/{image['id']}/locations").status_code == 403
    assert user("carol").get(f"/v2/images/{image['id']}/locations").status_code == 403


def test_ossn_0090_cve_2022_4134_what_was_promised_is_checked(placer: Who, site: Site) -> None:
    """OSSN-0090: a location with other bytes than its validation data say is refused."""
    nova = placer("nova")
    image = nova.ready()
    wrong = {"os_hash_algo": "sha256", "os_hash_value": 64 * "0"}
    assert post(nova, image["id"], site.add(b"content"), **wrong).status_code == 202
    shown, task = nova.settled(image["id"])
    assert (shown["status"], task["status"]) == ("queued", "failure")
    assert nova.raw_download(image["id"]).status_code == 204


def test_ossa_2013_002_cve_2013_0212_no_credentials_in_errors(placer: Who, open_places: Service, site: Site) -> None:
    """OSSA-2013-002, OSSA-2014-004 and bug 2095304: a URL's password reaches no answer, no message and no log."""
    alice, offset = placer("alice"), open_places.log.stat().st_size
    url = site.url.replace("http://", "http://me:s3cret@") + "/none"
    image = alice.ready()
    answer = alice.raw_patch(image["id"], [add("locations/-", {"url": url, "metadata": {}})])
    assert (answer.status_code, "s3cret" in answer.text) == (400, False)
    answer = post(alice, image["id"], url)
    assert "s3cret" not in answer.text
    if answer.status_code == 202:
        _, task = alice.settled(image["id"])
        assert (task["status"], "s3cret" in task["message"]) == ("failure", False)
    good = site.add(b"content").replace("http://", "http://me:s3cret@")
    if alice.raw_patch(image["id"], [add("locations/-", {"url": good, "metadata": {}})]).status_code == 200:
        assert "s3cret" not in str(alice.raw_download(image["id"]).headers)
        site.pages.clear()
        broken = alice.raw_download(image["id"])
        assert "s3cret" not in broken.text + str(broken.headers)
    assert "s3cret" not in open_places.log_since(offset)
