"""POST /v2/images/{id}/import: what is taken, what is refused, and what becomes of the image (spec 1.3.4, 2.3)."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from .client import Api, Image, remove, unused, web_download
from .conftest import ON_LOOPBACK
from .content import MIB, VIRTUAL, noise, qcow2
from .service import SINGLE_STORE, Service
from .site import Site

Who = Callable[[str], Api]

COPY = "copy-image"
DIRECT = "glance-direct"


def held(site: Site) -> threading.Event:
    """GETs of the site wait until this is set."""
    go = threading.Event()
    site.before = lambda path: go.wait(30)
    return go


def check_content(api: Api, service: Service, image: Image, data: bytes, *stores: str) -> None:
    """The image is active, these are its bytes, and they are in these stores and nowhere else."""
    assert image["status"] == "active"
    assert image["size"] == len(data)
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert (image["os_hash_algo"], image["os_hash_value"]) == ("sha512", hashlib.sha512(data).hexdigest())
    assert sorted(image["stores"].split(",")) == sorted(stores)
    assert image["os_glance_importing_to_stores"] == image["os_glance_failed_import"] == ""
    assert not {"os_glance_import_task", "os_glance_stage_host"} & image.keys()
    folders = {"fs": "images", "fast": "fast"}
    paths = {service.home / folders[store] / image["id"] for store in stores}
    assert set(service.stored(image["id"])) == paths
    assert [path.read_bytes() == data for path in paths] == [True] * len(stores)
    places = {(place["url"], place["metadata"]["store"]) for place in image["locations"]}
    assert places == {(f"file://{service.home / folders[store] / image['id']}", store) for store in stores}
    assert api.download(image["id"]) == data


# --- the ways in -----------------------------------------------------------------------------------------------------


def test_from_staging(importer: Api, importing: Service) -> None:
    data = noise(3 * MIB + 17)
    image = importer.staged(data)
    shown, task = importer.imported(image["id"], DIRECT)
    check_content(importer, importing, shown, data, "fs")
    assert shown["virtual_size"] == len(data)
    assert (task["status"], task["result"]) == ("success", {"image_id": image["id"]})


def test_from_the_web(importer: Api, importing: Service, site: Site) -> None:
    data = noise(3 * MIB + 17)
    image = importer.ready()
    shown, task = importer.imported(image["id"], web_download(site.add(data)))
    check_content(importer, importing, shown, data, "fs")
    assert shown["virtual_size"] == len(data)
    assert (task["status"], task["result"]) == ("success", {"image_id": image["id"]})


def test_from_another_store(importer: Api, importing: Service) -> None:
    data = noise(3 * MIB + 17)
    image = importer.active(data)
    shown, task = importer.imported(image["id"], COPY, stores=["fast"])
    check_content(importer, importing, shown, data, "fs", "fast")
    assert (task["status"], task["result"]) == ("success", {"image_id": image["id"]})
    for name in ("checksum", "os_hash_value", "virtual_size", "name", "owner", "created_at"):
        assert shown[name] == image[name]
    for store in ("fs", "fast"):
        assert importer.get(f"/v2/images/{image['id']}/file", params={"prefer": store}).content == data


@pytest.mark.parametrize("method", [DIRECT, "web-download"])
@pytest.mark.parametrize(
    ("wish", "stores"),
    [
        ({}, ["fs"]),
        ({"stores": ["fast"]}, ["fast"]),
        ({"stores": ["fast", "fs"]}, ["fast", "fs"]),
        ({"all_stores": True}, ["fs", "fast"]),
        ({"all_stores": False}, ["fs"]),
        ({"all_stores": False, "stores": ["fast"]}, ["fast"]),
        ({"headers": {"x-image-meta-store": "fast"}}, ["fast"]),
        ({"stores": ["fs", "fast"], "all_stores_must_succeed": False}, ["fs", "fast"]),
        ({"all_stores": True, "all_stores_must_succeed": True}, ["fs", "fast"]),
    ],
)
def test_to_which_stores(
    importer: Api, importing: Service, site: Site, method: str, wish: dict[str, Any], stores: list[str]
) -> None:
    data = noise(MIB)
    image = importer.staged(data) if method == DIRECT else importer.ready()
    shown, task = importer.imported(image["id"], DIRECT if method == DIRECT else web_download(site.add(data)), **wish)
    assert task["status"] == "success"
    check_content(importer, importing, shown, data, *stores)


@pytest.mark.better_than_glance  # whose task fails
def test_no_wish_at_all(importer: Api, importing: Service) -> None:
    shown, _ = importer.imported(importer.staged(b"content")["id"], DIRECT, stores=[])
    check_content(importer, importing, shown, b"content", "fs")


@pytest.mark.parametrize(
    "wish", [{"stores": ["fast"]}, {"all_stores": True}, {"headers": {"x-image-meta-store": "fast"}}]
)
@pytest.mark.parametrize("everywhere", [True, False])
def test_copies(importer: Api, importing: Service, wish: dict[str, Any], everywhere: bool) -> None:
    """`all_stores` leaves out those that have the image already."""
    data = noise(MIB)
    image = importer.active(data)
    shown, _ = importer.imported(image["id"], COPY, all_stores_must_succeed=everywhere, **wish)
    check_content(importer, importing, shown, data, "fs", "fast")


def test_a_copy_to_where_it_is(importer: Api, importing: Service) -> None:
    image = importer.active(b"content")
    assert importer.raw_import(image["id"], COPY, stores=["fs"]).status_code == 400
    assert importer.raw_import(image["id"], COPY).status_code == 400, "the default store"
    assert importer.tasks(image["id"]) == []
    importer.imported(image["id"], COPY, all_stores=True)
    response = importer.raw_import(image["id"], COPY, all_stores=True)
    assert (response.status_code, response.content) == (202, b"")
    shown, _ = importer.settled(image["id"])
    assert len(importer.tasks(image["id"])) == 1
    check_content(importer, importing, shown, b"content", "fs", "fast")


def test_only_the_missing_copy(importer: Api, importing: Service, site: Site) -> None:
    """From a store that nobody can write to."""
    data = noise(MIB)
    image = importer.ready()
    place = {"url": site.add(data), "metadata": {}}
    importer.patch(image["id"], {"op": "add", "path": "/locations/-", "value": place})
    shown, task = importer.imported(image["id"], COPY, stores=["fast"])
    assert (task["status"], sorted(shown["stores"].split(","))) == ("success", ["fast", "web"])
    assert (importing.home / "fast" / image["id"]).read_bytes() == data


def test_nothing_is_an_image_too(importer: Api, importing: Service, site: Site) -> None:
    for image, method in ((importer.staged(b""), DIRECT), (importer.ready(), web_download(site.add(b"")))):
        shown, _ = importer.imported(image["id"], method)
        assert (shown["status"], shown["size"], shown["virtual_size"]) == ("active", 0, None)
        assert importer.raw_download(image["id"]).content == b""


@pytest.mark.parametrize("method", [DIRECT, "web-download"])
def test_what_the_content_says_of_itself(importer: Api, site: Site, method: str) -> None:
    data = qcow2()
    image = importer.ready(disk_format="qcow2")
    if method == DIRECT:
        assert importer.raw_stage(image["id"], data).status_code == 204
    shown, _ = importer.imported(image["id"], DIRECT if method == DIRECT else web_download(site.add(data)))
    assert (shown["status"], shown["virtual_size"], shown["size"]) == ("active", VIRTUAL, len(data))


def test_a_redirect(importer: Api, importing: Service, site: Site) -> None:
    data = noise(MIB)
    image = importer.ready()
    url = site.moved(site.moved(site.add(data)))
    shown, _ = importer.imported(image["id"], web_download(url))
    check_content(importer, importing, shown, data, "fs")
    assert len(site.asked) >= 3


# --- while it runs, and what is left to see --------------------------------------------------------------------------


def test_while_it_runs(importer: Api, importing: Service, site: Site) -> None:
    data, go = noise(MIB), held(site)
    image = importer.ready()
    url = site.add(data)
    importer.order(image["id"], web_download(url), all_stores=True)
    shown = importer.wait_for_status(image["id"], "importing")
    assert sorted(shown["os_glance_importing_to_stores"].split(",")) == ["fast", "fs"]
    assert shown["os_glance_failed_import"] == ""
    [task] = importer.tasks(image["id"])
    assert shown["os_glance_import_task"] == task["id"]
    assert task["status"] in ("pending", "processing")
    assert task["result"] is task["expires_at"] is None
    for method in (web_download(url), DIRECT, COPY):
        assert importer.raw_import(image["id"], method).status_code == 409
    assert importer.raw_upload(image["id"], b"x").status_code == 409
    assert importer.raw_stage(image["id"], b"x").status_code == 409
    importer.patch(image["id"], {"op": "replace", "path": "/name", "value": "meanwhile"})
    go.set()
    shown, _ = importer.settled(image["id"])
    assert shown["name"] == "meanwhile"
    check_content(importer, importing, shown, data, "fs", "fast")


def test_while_a_copy_runs(importer: Api, site: Site) -> None:
    """The image can be read and changed all the time; a second copy waits for its turn."""
    data = noise(MIB)
    image = importer.ready()
    place = {"url": site.add(data), "metadata": {}}
    importer.patch(image["id"], {"op": "add", "path": "/locations/-", "value": place})
    go = held(site)
    importer.order(image["id"], COPY, stores=["fs"])
    while "os_glance_importing_to_stores" not in (shown := importer.show(image["id"])):
        time.sleep(0.05)
    assert (shown["status"], shown["os_glance_importing_to_stores"]) == ("active", "fs")
    assert importer.raw_import(image["id"], COPY, stores=["fast"]).status_code == 409
    go.set()
    shown, _ = importer.settled(image["id"])
    assert sorted(shown["stores"].split(",")) == ["fs", "web"]
    shown, _ = importer.imported(image["id"], COPY, stores=["fast"])
    assert sorted(shown["stores"].split(",")) == ["fast", "fs", "web"]


def test_the_task(importer: Api, site: Site) -> None:
    image, url = importer.ready(), site.add(b"content")
    response = importer.raw_import(image["id"], web_download(url), stores=["fast"], all_stores_must_succeed=False)
    _, task = importer.settled(image["id"])
    body = {"method": web_download(url), "stores": ["fast"], "all_stores_must_succeed": False}
    assert task["input"] == {"image_id": image["id"], "import_req": body, "backend": ["fast"]}
    assert (task["type"], task["status"], task["image_id"]) == ("api_image_import", "success", image["id"])
    assert (task["owner"], task["result"]) == (image["owner"] or "", {"image_id": image["id"]})
    assert task["request_id"] == response.headers["x-openstack-request-id"]
    assert task["expires_at"] > task["updated_at"] >= task["created_at"]
    assert isinstance(task["message"], str)


def test_clients_cannot_write_what_the_service_notes(importer: Api, site: Site) -> None:
    names = (
        "os_glance_import_task",
        "os_glance_importing_to_stores",
        "os_glance_failed_import",
        "os_glance_stage_host",
    )
    go = held(site)
    image = importer.ready()
    importer.order(image["id"], web_download(site.add(b"content")))
    for name in names:
        for operation in ({"op": "add", "value": "x"}, {"op": "replace", "value": "x"}, {"op": "remove"}):
            refused = importer.raw_patch(image["id"], [{"path": f"/{name}", **operation}])
            assert refused.status_code in (403, 409), refused.text
    go.set()
    assert importer.settled(image["id"])[0]["status"] == "active"
    for name in names:
        assert importer.raw_patch(image["id"], [remove(name)]).status_code in (403, 409)
        assert importer.raw_create(**{name: "x"}).status_code == 403


def test_orders_at_the_same_time(importer: Api, importing: Service, site: Site) -> None:
    data, go, codes = noise(MIB), held(site), []
    image, url = importer.ready(), site.add(data)

    def order() -> None:
        codes.append(importer.raw_import(image["id"], web_download(url)).status_code)

    threads = [threading.Thread(target=order) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    go.set()
    assert sorted(codes) == [202, *[409] * 5]
    shown, _ = importer.settled(image["id"])
    assert len(importer.tasks(image["id"])) == 1
    check_content(importer, importing, shown, data, "fs")


def test_many_images(importer: Api, importing: Service, site: Site) -> None:
    data = noise(MIB)
    url = site.add(data)
    images = [importer.ready() for _ in range(12)]
    for image in images:
        importer.order(image["id"], web_download(url), all_stores=True)
    for image in images:
        check_content(importer, importing, importer.settled(image["id"], 60)[0], data, "fs", "fast")


def test_the_source_is_read_once(importer: Api, site: Site) -> None:
    image, url = importer.ready(), site.add(noise(MIB))
    importer.imported(image["id"], web_download(url), all_stores=True)
    assert [asked for asked in site.asked if asked.startswith("GET")] == [f"GET {url.removeprefix(site.url)}"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"method": {}},
        {"method": {"name": None}},
        {"method": {"name": "nope"}},
        {"method": {"name": "glance-download"}},
        {"method": {"name": ["web-download"]}},
        {"method": web_download("http://127.0.0.1/"), "all_stores": "true"},
        {"method": web_download("http://127.0.0.1/"), "all_stores": 1},
        {"method": web_download("http://127.0.0.1/"), "all_stores_must_succeed": "false"},
        {"method": web_download("http://127.0.0.1/"), "all_stores_must_succeed": 0},
        {"method": web_download("http://127.0.0.1/"), "all_stores": True, "stores": ["fs"]},
        {"method": {"name": "web-download"}},
        {"method": web_download("")},
        {"method": web_download("http://")},
        {"method": web_download("127.0.0.1/x")},
        {"method": web_download("file:///etc/passwd")},
        {"method": web_download("filesystem:///etc/passwd")},
        {"method": web_download("ftp://127.0.0.1/x")},
        {"method": web_download("http://127.1/x")},
        {"method": web_download("http://2130706433/x")},
        {"method": web_download("http://host.invalid/x")},
    ],
)
def test_malformed(importer: Api, body: Any) -> None:
    image = importer.ready()
    assert importer.request("POST", f"/v2/images/{image['id']}/import", json=body).status_code == 400
    assert importer.show(image["id"]) == image
    assert importer.tasks(image["id"]) == []


@pytest.mark.better_than_glance  # which answers some of them with 500
@pytest.mark.parametrize(
    "body",
    [
        [],
        {"method": None},
        "web-download",
        None,
        {"method": "web-download"},
        {"method": ["web-download"]},
        {"method": web_download(None)},
        {"method": web_download(1)},
        {"method": web_download(["http://127.0.0.1/"])},
        {"method": web_download("http://127.0.0.1/"), "stores": "fs"},
        {"method": web_download("http://127.0.0.1/"), "stores": {"fs": 1}},
        {"method": web_download("http://127.0.0.1/"), "stores": [1]},
        {"method": web_download("http://127.0.0.1/"), "stores": [["fs"]]},
        {"method": web_download("http://[::1/x")},
        {"method": web_download("http://127.0.0.1:port/x")},
        {"method": web_download("http://127.0.0.1:99999/x")},
    ],
)
def test_malformed_in_other_ways(importer: Api, body: Any) -> None:
    test_malformed(importer, body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"nonsense"])
def test_no_json(importer: Api, body: bytes) -> None:
    image = importer.ready()
    headers = {"Content-Type": "application/json"}
    answer = importer.request("POST", f"/v2/images/{image['id']}/import", content=body, headers=headers)
    assert answer.status_code == 400
    assert importer.tasks(image["id"]) == []


def test_stores_named_twice_over(importer: Api) -> None:
    image = importer.staged()
    header = {"x-image-meta-store": "fast"}
    for wish in ({"stores": ["fast"]}, {"all_stores": True}):
        assert importer.raw_import(image["id"], DIRECT, header, **wish).status_code == 400
    assert importer.show(image["id"])["status"] == "uploading"


@pytest.mark.parametrize("store", ["nope", "", "FS"])
def test_stores_that_are_none(importer: Api, store: str) -> None:
    images: list[tuple[Image, str]] = [(importer.staged(), DIRECT), (importer.active(), COPY)]
    for image, method in images:
        assert importer.raw_import(image["id"], method, stores=[store]).status_code == 409
        assert importer.raw_import(image["id"], method, stores=["fast", store]).status_code == 409
        assert importer.tasks(image["id"]) == []
    if store:
        image = importer.staged()
        assert importer.raw_import(image["id"], DIRECT, {"x-image-meta-store": store}).status_code == 409


@pytest.mark.better_than_glance  # which starts, and fails
@pytest.mark.parametrize("store", ["os_glance_staging_store", "os_glance_tasks_store"])
def test_stores_that_are_not_for_images(importer: Api, store: str) -> None:
    test_stores_that_are_none(importer, store)


def test_states(importer: Api, site: Site) -> None:
    web = web_download(site.add(b"x"))
    queued, staged, active = importer.ready(), importer.staged(), importer.active()
    off = importer.active()
    assert importer.request("POST", f"/v2/images/{off['id']}/actions/deactivate").status_code == 204
    refused: list[tuple[Image, Any]] = [
        (queued, DIRECT),
        (queued, COPY),
        (staged, web),
        (staged, COPY),
        (active, DIRECT),
        (active, web),
    ]
    for image, method in [*refused, *((off, method) for method in (DIRECT, web, COPY))]:
        before = importer.show(image["id"])
        assert importer.raw_import(image["id"], method).status_code == 409
        assert importer.show(image["id"]) == before
        assert importer.tasks(image["id"]) == []
    assert importer.raw_import(unused(), DIRECT).status_code == 404


@pytest.mark.parametrize("fields", [{}, {"disk_format": "raw"}, {"container_format": "bare"}])
def test_formats_first(importer: Api, site: Site, fields: dict[str, str]) -> None:
    queued, staged = importer.create(**fields), importer.create(**fields)
    assert importer.raw_stage(staged["id"], b"x").status_code == 204
    assert importer.raw_import(queued["id"], web_download(site.add(b"x"))).status_code == 409
    assert importer.raw_import(staged["id"], DIRECT).status_code == 409


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_post(importer: Api, method: str) -> None:
    refused = importer.request(method, f"/v2/images/{importer.ready()['id']}/import")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")


def test_methods_that_are_switched_off(limited: Api, site: Site) -> None:
    image = limited.ready()
    for method in (DIRECT, COPY, web_download(site.add(b"x"))):
        assert limited.raw_import(image["id"], method).status_code == 400


def test_who_may(placer: Who, site: Site) -> None:
    alice, web = placer("alice"), web_download(site.add(b"content"))
    community, private = alice.ready(visibility="community"), alice.ready(visibility="private")
    for name, expected in (("bob", (403, 404)), ("carol", (403, 403))):
        for image, code in zip((community, private), expected, strict=True):
            assert placer(name).raw_import(image["id"], web).status_code == code
    assert placer("admin").raw_import(community["id"], web).status_code == 202
    assert alice.imported(private["id"], web)[0]["status"] == "active"
    placer("admin").settled(community["id"])


def test_copies_are_for_administrators(placer: Who) -> None:
    alice = placer("alice")
    image = alice.active(b"content", visibility="community")
    for name in ("alice", "bob", "carol"):
        assert placer(name).raw_import(image["id"], COPY, stores=["fast"]).status_code == 403
    admin = placer("admin")
    shown, task = admin.imported(image["id"], COPY, stores=["fast"])
    assert sorted(shown["stores"].split(",")) == ["fast", "fs"]
    assert (shown["owner"], task["user_id"]) == (image["owner"], "admin")
    assert task["owner"] != image["owner"]
    assert alice.tasks(image["id"]) == []


# --- one store, configured in the old way ----------------------------------------------------------------------------


def test_a_single_store(own: Callable[..., Service], site: Site) -> None:
    changes = {
        "DEFAULT": {"node_staging_uri": "file://{home}/staging", "show_multiple_locations": True},
        "task": {"work_dir": "{home}/tasks"},
        **ON_LOOPBACK,
    }
    service = own(changes, base=SINGLE_STORE)
    with closing(Api(service.url)) as api:
        data = noise(MIB)
        staged, queued = api.staged(data), api.ready()
        assert api.raw_import(staged["id"], DIRECT, all_stores_must_succeed=False).status_code == 400
        for image, method in ((staged, DIRECT), (queued, web_download(site.add(data)))):
            shown, task = api.imported(image["id"], method)
            assert (shown["status"], task["status"], task["input"]["backend"]) == ("active", "success", [None])
            assert api.download(image["id"]) == data
            assert service.stored(image["id"]) == [service.home / "images" / image["id"]]


@pytest.mark.better_than_glance  # which takes no notice of it
def test_a_single_store_is_no_choice(own: Callable[..., Service]) -> None:
    service = own({"DEFAULT": {"node_staging_uri": "file://{home}/staging"}}, base=SINGLE_STORE)
    with closing(Api(service.url)) as api:
        image = api.staged()
        for more in ({"all_stores": True}, {"stores": ["file"]}):
            assert api.raw_import(image["id"], DIRECT, **more).status_code == 400
