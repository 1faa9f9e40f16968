"""Images in their owners' own Swift accounts, through the whole service: who may read them there, and who acts when."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.rig.keystone import PASSWORD, SERVICE_USER, Keystone
from tests.rig.process import wait_for
from tests.rig.services import Glance, Glimpse
from tests.rig.swift import KeystoneSwift

MIB = 1 << 20
BODY = secrets.token_bytes(3000)


class Cloud:
    """A service that keeps images in their owners' accounts, and what its users see of both sides."""

    def __init__(self, service: Glimpse, keystone: Keystone, swift: KeystoneSwift) -> None:
        self.service = service
        self.keystone = keystone
        self.swift = swift
        found = keystone.call("GET", "/projects")["projects"]
        self.projects: dict[str, str] = {project["name"]: project["id"] for project in found}
        self._tokens: dict[str, str] = {}
        self._before: list[str] = []
        self._before = [name for project in ("demo", "admin") for name in self.containers(project)]

    def token(self, who: str) -> str:
        """Of a user in the project of the same name; `stranger` is in another one."""
        if who not in self._tokens:
            self._tokens[who] = self.keystone.token(who, {"stranger": "elsewhere"}.get(who, who))
        return self._tokens[who]

    def api(self, who: str) -> ImageApi:
        return ImageApi(self.service.url, self.token(who))

    def at_swift(
        self, method: str, path: str, who: str | None, project: str = "demo", **more: Any
    ) -> requests.Response:
        """A request to Swift itself, in a project's account."""
        headers = {"X-Auth-Token": self.token(who)} if who else {}
        with requests.Session() as session:
            session.trust_env = False
            url = f"{self.swift.account_url(self.projects[project])}{path}"
            return session.request(method, url, headers=headers, timeout=30, **more)

    def reads(self, image: str, who: str | None) -> int:
        """The status that somebody gets who asks Swift for the bytes of an image of `demo`."""
        return self.at_swift("GET", f"/glance_{image}/{image}", who).status_code

    def acl(self, image: str, kind: str = "Read") -> str:
        """Who may read, or write, in the container of an image of `demo`, as Swift has it."""
        return self.at_swift("HEAD", f"/glance_{image}", "demo").headers.get(f"X-Container-{kind}", "")

    def containers(self, project: str = "demo") -> list[str]:
        """Those of images in the account of a project, but for what tests of other files have left."""
        found = self.at_swift("GET", "", project, project, params={"format": "json", "prefix": "glance_"})
        names = [each["name"] for each in found.json()] if found.status_code == 200 else []
        return [name for name in names if name not in self._before]

    def image(self, who: str = "demo", **fields: Any) -> str:
        """An active image."""
        made = self.api(who).create(disk_format="raw", container_format="bare", **fields)
        self.api(who).upload(made, BODY)
        return made


def options(keystone: Keystone) -> dict[str, dict[str, object]]:
    """The sections of such a service."""
    return {
        "DEFAULT": {"enabled_backends": "sw:swift", "workers": 1, "debug": "true", "show_multiple_locations": "true"},
        "glance_store": {"default_backend": "sw"},
        "sw": {
            "swift_store_multi_tenant": "true",
            "swift_store_container": "glance",
            "swift_store_create_container_on_put": "true",
            "swift_store_auth_address": f"{keystone.url}/v3",
            "swift_store_user": f"service:{SERVICE_USER}",
            "swift_store_key": PASSWORD,
            "swift_store_admin_tenants": "an-admin-project",
            "swift_store_large_object_size": 5,
            "swift_store_large_object_chunk_size": 1,
        },
        "paste_deploy": {"flavor": "keystone"},
        "keystone_authtoken": {**keystone.authtoken(), "token_cache_time": -1},
    }


@pytest.fixture(scope="module")
def cloud(rig_folder: Path, keystone: Keystone, keystone_swift: KeystoneSwift, swift_reseller: None) -> Iterator[Cloud]:
    """One service for all tests of a file; who stops it starts it again."""
    folder = Path(tempfile.mkdtemp(dir=rig_folder))
    folder.chmod(0o755)
    factory = ServiceFactory(Glimpse, folder)
    try:
        yield Cloud(factory(options(keystone)), keystone, keystone_swift)
    finally:
        factory.stop_all()


def test_an_image_lives_and_dies_in_its_owners_account(cloud: Cloud) -> None:
    demo = cloud.api("demo")
    image = cloud.image()
    assert demo.download(image) == BODY
    part = demo.call("GET", f"/v2/images/{image}/file", headers={"Range": "bytes=7-16"})
    assert (part.status_code, part.content) == (206, BODY[7:17])
    assert cloud.at_swift("GET", f"/glance_{image}/{image}", "demo").content == BODY
    assert cloud.acl(image) == f"{cloud.projects['demo']}:*"
    assert cloud.acl(image, "Write") == "an-admin-project:*"
    demo.delete(image)
    assert cloud.containers() == []


def test_members_may_read_until_they_are_taken_off(cloud: Cloud) -> None:
    demo, alt, stranger = cloud.api("demo"), cloud.api("alt"), cloud.api("stranger")
    image, member = cloud.image(visibility="shared"), cloud.projects["alt"]
    assert cloud.reads(image, "alt") == 403
    demo.ok("POST", f"/v2/images/{image}/members", json={"member": member})
    assert cloud.reads(image, "alt") == 200
    assert alt.download(image) == BODY
    assert cloud.reads(image, "stranger") == 403
    assert stranger.call("GET", f"/v2/images/{image}/file").status_code == 404
    # A name that would be more than a project in Swift's list is none there.
    demo.ok("POST", f"/v2/images/{image}/members", json={"member": "x:*,*:*,.r"})
    assert cloud.acl(image) == f"{cloud.projects['demo']}:*,{member}:*"
    demo.ok("DELETE", f"/v2/images/{image}/members/{member}")
    assert cloud.reads(image, "alt") == 403
    assert cloud.acl(image) == f"{cloud.projects['demo']}:*"
    demo.delete(image)


def test_visibility_decides_who_may_read(cloud: Cloud) -> None:
    """Everybody with a token for public and community images, nobody else for others, at once."""
    admin, demo = cloud.api("admin"), cloud.api("demo")
    image = cloud.image(visibility="community")
    assert cloud.api("stranger").download(image) == BODY
    for visibility, status in (("private", 403), ("public", 200), ("shared", 403), ("community", 200)):
        changer = admin if visibility == "public" else demo
        changer.change(image, {"op": "replace", "path": "/visibility", "value": visibility})
        assert cloud.reads(image, "stranger") == status, visibility
        assert cloud.reads(image, None) == 401
    admin.ok("POST", f"/v2/images/{image}/actions/deactivate")
    assert cloud.reads(image, "stranger") == 403
    admin.ok("POST", f"/v2/images/{image}/actions/reactivate")
    assert cloud.reads(image, "stranger") == 200
    demo.delete(image)


def test_admins_act_in_the_owners_account(cloud: Cloud) -> None:
    """What an admin uploads, reads and deletes for somebody is not in the admin's own account."""
    admin = cloud.api("admin")
    image = admin.create(disk_format="raw", container_format="bare", owner=cloud.projects["demo"], visibility="private")
    admin.upload(image, BODY)
    assert cloud.containers() == [f"glance_{image}"]
    assert cloud.containers("admin") == []
    assert admin.download(image) == cloud.api("demo").download(image) == BODY
    admin.delete(image)
    assert cloud.containers() == []


@pytest.mark.usefixtures("swift_reseller")
def test_imports_and_the_scrubber_act_for_the_owner(
    glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, keystone_swift: KeystoneSwift
) -> None:
    """Whoever works after the caller has gone."""
    sections = options(keystone)
    sections["DEFAULT"] |= {"delayed_delete": "true", "scrub_time": 1, "wakeup_time": 1}
    cloud = Cloud(glimpse_service(sections), keystone, keystone_swift)
    demo = cloud.api("demo")
    image = demo.create(disk_format="raw", container_format="bare", visibility="community")
    demo.ok("PUT", f"/v2/images/{image}/stage", data=BODY, headers={"Content-Type": "application/octet-stream"})
    demo.ok("POST", f"/v2/images/{image}/import", json={"method": {"name": "glance-direct"}})
    wait_for("the import", lambda: demo.show(image)["status"] == "active", 30)
    wait_for("the store's list of readers", lambda: cloud.acl(image) == "*:*", 10)
    assert cloud.api("alt").download(image) == BODY
    demo.delete(image)
    wait_for("the scrubber", lambda: cloud.containers() == [], 30)


def test_a_store_that_is_away_hears_later_who_may_read(cloud: Cloud) -> None:
    demo = cloud.api("demo")
    image = cloud.image(visibility="community")
    cloud.swift.stop()
    try:
        change = [{"op": "replace", "path": "/visibility", "value": "private"}]
        answer = demo.call(
            "PATCH", f"/v2/images/{image}", json=change,
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        )  # fmt: skip
        assert answer.status_code == 503
        assert demo.show(image)["visibility"] == "private"
    finally:
        cloud.swift.start()
    wait_for("the store's list of readers", lambda: cloud.reads(image, "stranger") == 403, 30)
    assert "does not know yet who may read it" in cloud.service.logs
    demo.delete(image)


def test_without_rights_of_its_own_the_service_acts_by_its_callers(
    glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, keystone_swift: KeystoneSwift
) -> None:
    """Nothing but the switch is configured: what Glance's guides call the least."""
    sections = options(keystone)
    sections["sw"] = {"swift_store_multi_tenant": "true", "swift_store_create_container_on_put": "true"}
    cloud = Cloud(glimpse_service(sections), keystone, keystone_swift)
    demo = cloud.api("demo")
    image = cloud.image(visibility="community")
    assert cloud.api("alt").download(image) == BODY
    demo.delete(image)
    assert cloud.containers() == []
    other = cloud.api("admin").create(disk_format="raw", container_format="bare", owner=cloud.projects["demo"])
    refused = cloud.api("admin").call(
        "PUT", f"/v2/images/{other}/file", data=BODY, headers={"Content-Type": "application/octet-stream"}
    )
    assert refused.status_code == 503
    assert demo.show(other)["status"] == "queued"
    demo.delete(other)


def test_an_upload_outlasts_its_token(cloud: Cloud) -> None:
    """The service's own rights are not needed for it: the caller trusts its user, for as long as it takes."""
    with cloud.keystone.short_lived_token("demo", "demo", 8) as (token, _):
        short = ImageApi(cloud.service.url, token)
        image = short.create(disk_format="raw", container_format="bare")
        content = secrets.token_bytes(3 * MIB)

        def slowly() -> Iterator[bytes]:
            yield content[: 2 * MIB]
            deadline = time.monotonic() + 60
            while short.call("GET", "/v2/images").status_code != 401 and time.monotonic() < deadline:
                time.sleep(0.2)
            yield content[2 * MIB :]

        headers = {"Content-Type": "application/octet-stream"}
        assert short.call("PUT", f"/v2/images/{image}/file", data=slowly(), headers=headers).status_code == 204
    demo = cloud.api("demo")
    assert demo.download(image) == content
    user = cloud.keystone.call("GET", "/users?name=demo")["users"][0]["id"]
    assert cloud.keystone.call("GET", f"/OS-TRUST/trusts?trustor_user_id={user}")["trusts"] == []
    demo.delete(image)
    assert cloud.containers() == []


def test_a_killed_upload_leaves_nothing(cloud: Cloud) -> None:
    """Its caller has gone, and with it the token: the next process removes it with the service's own rights."""
    demo = cloud.api("demo")
    image = demo.create(disk_format="raw", container_format="bare")
    killed = threading.Event()

    def endless() -> Iterator[bytes]:
        while not killed.is_set():
            yield bytes(MIB)
            time.sleep(0.05)

    def upload() -> None:
        with contextlib.suppress(requests.RequestException):
            headers = {"Content-Type": "application/octet-stream"}
            cloud.api("demo").call("PUT", f"/v2/images/{image}/file", data=endless(), headers=headers)

    uploading = threading.Thread(target=upload)
    uploading.start()
    try:
        wait_for(
            "the first segments", lambda: len(cloud.at_swift("GET", f"/glance_{image}", "demo").text.split()) > 2, 30
        )
    finally:
        cloud.service.kill9()
        killed.set()
        uploading.join()
    cloud.service.start()
    wait_for("the sweep", lambda: demo.show(image)["status"] == "queued", 30)
    assert cloud.containers() == []
    demo.upload(image, BODY)
    assert demo.download(image) == BODY
    demo.delete(image)


def test_nobody_elses_bytes_by_a_location(cloud: Cloud) -> None:
    """A place that a caller names is read with the caller's own rights, and a token goes to this cloud's Swift only."""
    secret = cloud.image()
    theirs = f"{cloud.swift.account_url(cloud.projects['demo'])}/glance_{secret}/{secret}"
    alt, other = cloud.api("alt"), uuid.uuid4()
    elsewhere = f"http://127.0.0.1:{cloud.service.port}/v1/AUTH_x/glance_{other}/{other}"
    for url in (theirs, elsewhere):
        image = alt.create(disk_format="raw", container_format="bare")
        change = [{"op": "add", "path": "/locations/-", "value": {"url": f"swift+{url}", "metadata": {}}}]
        answer = alt.call(
            "PATCH", f"/v2/images/{image}", json=change,
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        )  # fmt: skip
        assert answer.status_code == 400, answer.text
        alt.delete(image)
    assert f'"HEAD /v1/AUTH_x/glance_{other}' not in cloud.service.logs
    assert cloud.reads(secret, "demo") == 200
    cloud.api("demo").delete(secret)


@pytest.mark.usefixtures("swift_reseller")
def test_glance_reads_what_is_stored_here_and_the_other_way_round(
    glimpse_service: ServiceFactory[Glimpse], glance_service: ServiceFactory[Glance], keystone: Keystone,
    keystone_swift: KeystoneSwift, service_folder: Path,
) -> None:  # fmt: skip
    """Both on the same database: small and large images, of owners and for others, and deleted by the other one."""
    sections = options(keystone)
    sections["database"] = {"connection": f"sqlite:///{service_folder}/shared.sqlite"}
    ours = Cloud(glimpse_service(sections), keystone, keystone_swift)
    glance = glance_service(sections)
    theirs = Cloud(ours.service, keystone, keystone_swift)
    theirs.service = glance  # type: ignore[assignment]
    for maker, other in ((ours, theirs), (theirs, ours)):
        # Whole segments: Glance announces the last one as if it were one, and Swift waits for the rest.
        for content in (BODY, secrets.token_bytes(6 * 1000 * 1024)):
            image = maker.api("demo").create(disk_format="raw", container_format="bare", visibility="community")
            maker.api("demo").upload(image, content)
            for who in ("demo", "alt"):
                assert other.api(who).download(image) == content
            assert ours.acl(image) == "*:*"
            other.api("demo").delete(image)
            assert ours.containers() == []


@pytest.mark.usefixtures("swift_reseller")
def test_copies_between_stores(
    glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, keystone_swift: KeystoneSwift
) -> None:
    """An admin orders them: into owners' accounts and out of them; readers are named after a copy too."""
    sections = options(keystone)
    sections["DEFAULT"]["enabled_backends"] = "fs:file,sw:swift"
    cloud = Cloud(glimpse_service(sections), keystone, keystone_swift)
    demo, admin = cloud.api("demo"), cloud.api("admin")
    for source, target in (("fs", "sw"), ("sw", "fs")):
        image = demo.create(disk_format="raw", container_format="bare", visibility="community")
        headers = {"Content-Type": "application/octet-stream", "X-Image-Meta-Store": source}
        demo.ok("PUT", f"/v2/images/{image}/file", data=BODY, headers=headers)
        admin.ok("POST", f"/v2/images/{image}/import", json={"method": {"name": "copy-image"}, "stores": [target]})
        wait_for("the copy", lambda: {"fs", "sw"} == set(demo.show(image)["stores"].split(",")), 30)  # noqa: B023
        wait_for("the store's list of readers", lambda: cloud.acl(image) == "*:*", 10)  # noqa: B023
        for store in ("fs", "sw"):
            path = f"/v2/images/{image}/file?prefer={store}"
            assert cloud.api("alt").ok("GET", path).content == BODY
        demo.delete(image)
    assert cloud.containers() == []
