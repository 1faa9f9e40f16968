"""Locations as a property of images: PATCH, what is shown of them, and leaving one store (spec 1.2.1, 1.2.5, 1.3.7)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from .client import PATCH_20, Api, add, remove, replace, unused
from .content import noise
from .service import Service
from .site import Site

Who = Callable[[str], Api]

GOOD = "ab" * 32


def place(url: str, metadata: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"url": url, "metadata": metadata or {}, **more}


def status_of(api: Api, image_id: str, *operations: dict[str, Any]) -> int:
    return api.raw_patch(image_id, list(operations)).status_code


# --- adding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["-", "0", "7", "01"])
def test_the_first_location_makes_an_image_active(placer: Who, site: Site, position: str) -> None:
    alice, url = placer("alice"), site.add(b"content")
    image = alice.ready()
    assert image["locations"] == []
    shown = alice.patch(image["id"], add(f"locations/{position}", place(url, {"note": "mine"})))
    assert (shown["status"], shown["size"], shown["checksum"]) == ("active", 7, None)
    assert shown["locations"] == [place(url, {"note": "mine", "store": "web"})]
    assert (shown["direct_url"], shown["stores"]) == (url, "web")
    again = alice.show(image["id"])
    assert again == shown
    assert alice.download(image["id"]) == b"content"
    alice.delete(image["id"])
    assert site.pages, "somebody else's bytes stay"


@pytest.mark.better_than_glance
def test_one_call_does_not_ask_for_any_number_of_places(placer: Who, site: Site) -> None:
    """What is added and taken away again in the same patch is asked for all the same."""
    admin = placer("admin")
    image = admin.ready()["id"]
    admin.patch(image, add("locations/-", place(site.add(b"content"))))
    operations = []
    for _ in range(150):
        operations += [add("locations/-", place(site.add(b"content"))), remove("locations/1")]
    assert status_of(admin, image, *operations) == 400
    assert len(site.asked) < 135
    assert len(admin.show(image)["locations"]) == 1


def test_the_older_media_type(placer: Who, site: Site) -> None:
    alice, url = placer("alice"), site.add(b"content")
    image = alice.ready()
    response = alice.raw_patch(image["id"], [{"add": "/locations/-", "value": place(url)}], PATCH_20)
    assert response.status_code == 200, response.text
    response = alice.raw_patch(image["id"], [{"replace": "/locations", "value": [place(url, {"a": "b"})]}], PATCH_20)
    assert response.json()["locations"] == [place(url, {"a": "b", "store": "web"})]
    assert placer("admin").raw_patch(image["id"], [{"remove": "/locations/0"}], PATCH_20).status_code == 403


def test_the_store_is_what_the_url_says(placer: Who, site: Site) -> None:
    """Nobody sends readers of a URL to another store."""
    alice, url = placer("alice"), site.add(b"content")
    image = alice.ready()
    for claimed in ("fs", "nothing"):
        shown = alice.patch(image["id"], add("locations/-", place(url, {"store": claimed, "n": claimed})))
        assert [each["metadata"]["store"] for each in shown["locations"]] == ["web"] * len(shown["locations"])


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "File:///etc/passwd",
        "filesystem:///etc/passwd",
        "FileSystem:///etc/passwd",
        " file:///etc/passwd",
        "\tfile:///etc/passwd",
        "file:/etc/passwd",
        "file%3A///etc/passwd",
        "file://localhost/etc/passwd",
        "swift+config://reference/container/object",
        "SWIFT+CONFIG://reference/container/object",
        "rbd://pool/image",
        "cinder://volume",
        "HTTP://127.0.0.1/x",
        "http:/127.0.0.1/x",
        "http:\\\\127.0.0.1\\x",
        "http://",
        "http://127.0.0.1:1/refused",
        "http://[::1/x",
        "ftp://127.0.0.1/x",
        "/etc/passwd",
        "x",
        "",
    ],
)
def test_urls_that_nobody_may_name(placer: Who, open_places: Service, url: str) -> None:
    """OSSA-2014-041, OSSA-2015-003 and their relatives; what is behind a port shall not show either (OSSN-0078)."""
    alice = placer("alice")
    image = alice.ready()
    for operation in (add("locations/-", place(url)), replace("locations", [place(url)])):
        response = alice.raw_patch(image["id"], [replace("name", "new"), operation])
        assert response.status_code == 400
        assert "Invalid location" in response.text
    assert alice.show(image["id"]) == image


@pytest.mark.better_than_glance
@pytest.mark.parametrize("end", ["\n", "\r\nX-Header: 1", " ", "\u2028"])
def test_urls_are_one_word(placer: Who, site: Site, end: str) -> None:
    alice = placer("alice")
    image = alice.ready()
    assert status_of(alice, image["id"], add("locations/-", place(site.add(b"x") + end))) == 400


def test_bytes_that_are_not_there(placer: Who, site: Site) -> None:
    alice = placer("alice")
    image = alice.ready()
    for url in (f"{site.url}/none", site.add(b"")):
        assert status_of(alice, image["id"], add("locations/-", place(url))) == 400
    assert alice.show(image["id"])["status"] == "queued"


def test_redirects_lead_to_web_servers_only(placer: Who, site: Site) -> None:
    alice = placer("alice")
    image = alice.ready()
    for target in (b"file:///etc/passwd", b"ftp://127.0.0.1/x"):
        assert status_of(alice, image["id"], add("locations/-", place(site.add(target, "moved/")))) == 400
    moved = site.add(site.add(b"there").encode(), "moved/")
    alice.patch(image["id"], add("locations/-", place(moved)))
    assert alice.download(image["id"]) == b"there"


def test_formats_first(placer: Who, site: Site) -> None:
    alice, url = placer("alice"), site.add(b"content")
    image = alice.create(container_format="bare")
    assert status_of(alice, image["id"], add("locations/-", place(url))) == 400
    shown = alice.patch(image["id"], replace("disk_format", "raw"), add("locations/-", place(url)))
    assert shown["status"] == "active"
    late = alice.ready()
    assert status_of(alice, late["id"], add("locations/-", place(url)), replace("disk_format", "iso")) == 403
    assert alice.show(late["id"])["status"] == "queued"


def test_more_than_one(placer: Who, site: Site) -> None:
    alice, urls = placer("alice"), [site.add(b"content") for _ in range(4)]
    image = alice.ready()
    alice.patch(image["id"], *(add("locations/-", place(url)) for url in urls[:3]))
    for operation in (add("locations/-", place(urls[0])), add("locations/0", place(urls[0], {"store": "fs"}))):
        assert status_of(alice, image["id"], operation) == 400
    alice.patch(image["id"], add("locations/-", place(urls[0], {"other": "metadata"})))
    response = alice.raw_patch(image["id"], [add("locations/-", place(urls[3]))])
    assert response.status_code == 413
    assert "may have 4 locations" in response.text
    shown = alice.show(image["id"])
    assert [each["url"] for each in shown["locations"]] == [*urls[:3], urls[0]]
    assert shown["stores"] == "web,web,web,web"


@pytest.mark.parametrize("position", ["-1", "x", "0x1", "1.0", "²"])
def test_positions_that_make_no_sense(placer: Who, site: Site, position: str) -> None:
    alice = placer("alice")
    image = alice.ready()
    assert status_of(alice, image["id"], add(f"locations/{position}", place(site.add(b"x")))) == 400


@pytest.mark.parametrize(
    "operation",
    [
        add("locations/-", None),
        add("locations/-", []),
        add("locations/-", {"url": "http://127.0.0.1/x"}),
        add("locations/-", {"metadata": {}}),
        add("locations/-", place("http://127.0.0.1/" + 255 * "x")),
        add("locations/-", place("http://127.0.0.1/x", validation_data={})),
        add("locations/-", place("http://127.0.0.1/x", validation_data={"checksum": 32 * "a"})),
        add("locations", place("http://127.0.0.1/x")),
        add("locations/0/url", "http://127.0.0.1/x"),
        replace("locations", None),
        replace("locations", "x"),
        replace("locations", {}),
        replace("locations/0", place("http://127.0.0.1/x")),
        remove("locations"),
    ],
)
def test_malformed(placer: Who, operation: dict[str, Any]) -> None:
    image = placer("admin").ready()
    assert status_of(placer("admin"), image["id"], operation) == 400


@pytest.mark.better_than_glance
def test_metadata_is_text(placer: Who, site: Site) -> None:
    """The original answers 500."""
    alice, url = placer("alice"), site.add(b"x")
    image = alice.ready()
    for value in (1, None, True, [1], {"a": {"b": 1.5}}):
        assert status_of(alice, image["id"], add("locations/-", place(url, {"key": value}))) == 400
    assert status_of(alice, image["id"], add("locations/-", place(url, {"key": 70_000 * "x"}))) == 400
    alice.patch(image["id"], add("locations/-", place(url, {"key": {"deep": ["text"]}})))


def test_only_queued_and_active(placer: Who, site: Site) -> None:
    alice, admin, url = placer("alice"), placer("admin"), site.add(b"content")
    image = alice.active(b"content")
    admin.request("POST", f"/v2/images/{image['id']}/actions/deactivate")
    if admin.show(image["id"])["status"] == "deactivated":  # the call may not be built yet
        for operation in (add("locations/-", place(url)), replace("locations", [place(url)]), remove("locations/0")):
            assert status_of(admin, image["id"], operation) == 409
        assert alice.show(image["id"])["locations"] == []


# --- what the bytes should hash to -----------------------------------------------------------------------------------


def test_validation_data_is_kept(placer: Who, site: Site) -> None:
    alice, url = placer("alice"), site.add(b"content")
    image = alice.ready()
    said = {"checksum": "cd" * 16, "os_hash_algo": "sha256", "os_hash_value": GOOD}
    shown = alice.patch(image["id"], add("locations/-", place(url, validation_data=said)))
    assert {name: shown[name] for name in said} == said
    alice.patch(image["id"], add("locations/-", place(site.add(b"content"), validation_data=said)))
    for name in said:
        other = {**said, name: said[name].replace("d", "e").replace("b", "e").replace("sha256", "sha512")}
        operation = add("locations/-", place(site.add(b"content"), validation_data=other))
        assert status_of(alice, image["id"], operation) == 409


@pytest.mark.parametrize(
    "said",
    [
        {"os_hash_algo": "sha512", "os_hash_value": 128 * "a"},
        {"os_hash_algo": "sha256", "os_hash_value": 128 * "a"},
        {"os_hash_algo": "sha256", "os_hash_value": 64 * "z"},
        {"os_hash_algo": "sha256", "os_hash_value": GOOD, "checksum": 32 * "z"},
    ],
)
def test_validation_data_that_cannot_be(placer: Who, site: Site, said: dict[str, str]) -> None:
    alice = placer("alice")
    image = alice.ready()
    assert status_of(alice, image["id"], add("locations/-", place(site.add(b"x"), validation_data=said))) == 409
    assert site.asked == []


def test_validation_data_that_contradicts_itself(placer: Who, site: Site) -> None:
    alice = placer("alice")
    image = alice.ready()
    both = [
        place(site.add(b"x"), validation_data={"os_hash_algo": "sha256", "os_hash_value": value})
        for value in (GOOD, GOOD[::-1])
    ]
    assert status_of(alice, image["id"], replace("locations", both)) == 409


def test_an_active_image_learns_no_new_hash(placer: Who, site: Site) -> None:
    alice = placer("alice")
    image = alice.ready()
    alice.patch(image["id"], add("locations/-", place(site.add(b"x"))))
    said = {"os_hash_algo": "sha256", "os_hash_value": GOOD}
    assert status_of(alice, image["id"], add("locations/-", place(site.add(b"x"), validation_data=said))) == 409


# --- replacing -------------------------------------------------------------------------------------------------------


def test_replace_where_there_are_none(placer: Who, site: Site) -> None:
    alice, urls = placer("alice"), [site.add(b"content"), site.add(b"content")]
    image = alice.ready()
    assert status_of(alice, image["id"], replace("locations", [place(urls[0])] * 2)) == 400
    too_many = [place(urls[0], {"n": str(number)}) for number in range(5)]
    assert status_of(alice, image["id"], replace("locations", too_many)) == 413
    shown = alice.patch(image["id"], replace("locations", [place(url) for url in urls]))
    assert (shown["status"], shown["size"]) == ("active", 7)
    assert [each["url"] for each in shown["locations"]] == urls


def test_replace_changes_metadata_only(placer: Who, site: Site) -> None:
    """OSSN-0065: whoever could change the URL could change the bytes of an image that others trust."""
    alice, urls = placer("alice"), [site.add(b"content"), site.add(b"content")]
    image = alice.ready()
    alice.patch(image["id"], replace("locations", [place(url) for url in urls]))
    other = place(site.add(b"other"))
    for attempt in ([other], [place(urls[0]), other], [place(urls[0])], [*map(place, urls), other]):
        assert status_of(alice, image["id"], replace("locations", attempt)) == 400
    wanted = [place(urls[1], {"a": "b"}), place(urls[0], {"c": "d", "store": "fs"})]
    shown = alice.patch(image["id"], replace("locations", wanted))
    expected = [place(urls[1], {"a": "b", "store": "web"}), place(urls[0], {"c": "d", "store": "web"})]
    assert shown["locations"] == alice.show(image["id"])["locations"] == expected


def test_an_image_is_never_emptied(placer: Who, site: Site) -> None:
    """OSSA-2016-006: else its owner could give it other bytes."""
    admin, alice = placer("admin"), placer("alice")
    image = alice.active(b"content")
    for operation in (replace("locations", []), remove("locations/0"), remove("locations/-"), remove("locations/5")):
        for api in (admin, alice):
            assert status_of(api, image["id"], operation) == 403
    queued = alice.ready()
    assert status_of(admin, queued["id"], remove("locations/0")) == 409
    shown = alice.show(image["id"])
    assert (shown["status"], shown["size"], shown["checksum"]) == ("active", 7, image["checksum"])
    assert alice.download(image["id"]) == b"content"


# --- removing --------------------------------------------------------------------------------------------------------


def test_removal_takes_the_bytes_along(placer: Who, open_places: Service, site: Site) -> None:
    admin, alice = placer("admin"), placer("alice")
    image = alice.active(b"content")
    url = site.add(b"content")
    [stored] = open_places.stored(image["id"])
    alice.patch(image["id"], add("locations/-", place(url)))
    assert status_of(alice, image["id"], remove("locations/0")) == 403
    assert status_of(admin, image["id"], remove("locations/2")) == 400
    assert status_of(admin, image["id"], remove("locations/x")) == 400
    assert stored.exists()
    shown = admin.patch(image["id"], remove("locations/0"))
    assert shown["locations"] == [place(url, {"store": "web"})]
    assert (shown["status"], shown["checksum"]) == ("active", image["checksum"])
    assert not stored.exists()
    assert alice.download(image["id"]) == b"content"


def test_added_and_removed_at_once(placer: Who, site: Site) -> None:
    admin, urls = placer("admin"), [site.add(b"content"), site.add(b"content")]
    image = admin.ready()
    shown = admin.patch(
        image["id"], add("locations/-", place(urls[0])), add("locations/-", place(urls[1])), remove("locations/0")
    )
    assert shown["locations"] == admin.show(image["id"])["locations"] == [place(urls[1], {"store": "web"})]


def test_a_failed_patch_removes_nothing(placer: Who, open_places: Service, site: Site) -> None:
    admin = placer("admin")
    image = admin.active(b"content")
    admin.patch(image["id"], add("locations/-", place(site.add(b"content"))))
    before = admin.show(image["id"])
    assert status_of(admin, image["id"], remove("locations/0"), replace("nothing", "x")) == 409
    assert admin.show(image["id"]) == before
    assert open_places.stored(image["id"])


# --- who may ---------------------------------------------------------------------------------------------------------


def test_strangers_and_readers(placer: Who, site: Site) -> None:
    alice, url = placer("alice"), site.add(b"content")
    shared, private = alice.ready(visibility="community"), alice.ready(visibility="private")
    for name, expected in (("bob", (403, 404)), ("carol", (403, 403))):
        for image, code in zip((shared, private), expected, strict=True):
            assert status_of(placer(name), image["id"], add("locations/-", place(url))) == code
            assert status_of(placer(name), image["id"], remove("locations/0")) == code
    assert status_of(alice, unused(), add("locations/-", place(url))) == 404
    assert site.asked == [], "nobody is asked about a URL for a caller who may not set it"


def test_switched_off(user: Who, site: Site) -> None:
    admin = user("admin")
    image = admin.active(b"content")
    url = site.add(b"content")
    for operation in (
        add("locations/-", place(url)), replace("locations", [place(url)]), replace("locations", []),
        remove("locations/0"),
    ):  # fmt: skip
        assert status_of(admin, image["id"], operation) == 403
    assert "locations" not in admin.show(image["id"])
    assert site.asked == []


# --- leaving a store -------------------------------------------------------------------------------------------------


def leave(api: Api, store: str, image_id: str) -> int:
    return api.request("DELETE", f"/v2/stores/{store}/{image_id}").status_code


def test_leaving_a_store(placer: Who, open_places: Service, site: Site) -> None:
    admin, alice = placer("admin"), placer("alice")
    image = alice.active(b"content")
    assert leave(admin, "fs", image["id"]) == 403, "the only one"
    alice.patch(image["id"], add("locations/-", place(site.add(b"content"))))
    assert leave(alice, "fs", image["id"]) == 403
    assert leave(placer("bob"), "fs", image["id"]) == 404
    assert leave(admin, "fast", image["id"]) == 404
    assert leave(admin, "nothing", image["id"]) == 409
    assert leave(admin, "fs", unused()) == 404
    assert leave(admin, "fs", alice.ready()["id"]) == 409
    assert open_places.stored(image["id"])
    assert leave(admin, "fs", image["id"]) == 204
    assert not open_places.stored(image["id"])
    assert alice.show(image["id"])["stores"] == "web"
    assert alice.download(image["id"]) == b"content"
    assert leave(admin, "web", image["id"]) == 403
    assert admin.request("GET", f"/v2/stores/fs/{image['id']}").status_code == 405


@pytest.mark.better_than_glance
def test_leaving_a_store_that_lost_the_bytes(placer: Who, open_places: Service, site: Site) -> None:
    """The original answers 500 and keeps the location."""
    admin = placer("admin")
    image = admin.active(b"content")
    admin.patch(image["id"], add("locations/-", place(site.add(b"content"))))
    open_places.stored(image["id"])[0].unlink()
    assert leave(admin, "fs", image["id"]) == 204
    assert admin.show(image["id"])["stores"] == "web"


def test_a_single_store_has_no_id(limited: Api) -> None:
    assert leave(limited, "file", limited.active(b"x")["id"]) == 404


# --- reading ---------------------------------------------------------------------------------------------------------


def prefer(api: Api, image_id: str, stores: str) -> bytes | int:
    response = api.get(f"/v2/images/{image_id}/file", params={"prefer": stores})
    return response.content if response.status_code == 200 else response.status_code


def test_the_preferred_store_is_read_first(placer: Who, site: Site) -> None:
    alice, url = placer("alice"), site.add(b"CONTENT")
    image = alice.active(b"content")
    alice.patch(image["id"], add("locations/-", place(url)))
    assert alice.download(image["id"]) == b"content"
    assert prefer(alice, image["id"], "web") == b"CONTENT"
    assert prefer(alice, image["id"], "fs") == b"content"
    assert prefer(alice, image["id"], "web,fs") == b"content", "the weight decides among the preferred"
    assert prefer(alice, image["id"], "fast,web") == b"CONTENT"
    assert prefer(alice, image["id"], "fast") == b"content"
    assert prefer(alice, image["id"], "nothing") == 400
    assert prefer(alice, image["id"], "web,nothing") == 400
    assert prefer(placer("carol"), image["id"], "web") == 403
    assert prefer(placer("bob"), image["id"], "web") == 404
    del site.pages[url.removeprefix(site.url)]
    assert prefer(alice, image["id"], "web") == b"content"


def test_a_single_store_is_no_choice(limited: Api) -> None:
    assert prefer(limited, limited.active(b"x")["id"], "file") == 400


@pytest.mark.better_than_glance
def test_a_place_with_other_bytes_is_left_out(placer: Who, open_places: Service, site: Site) -> None:
    """As far as their number tells: the original sends them, with the length and the hash of the right ones."""
    alice = placer("alice")
    data = noise(100_000)
    image = alice.active(data)
    alice.patch(image["id"], add("locations/-", place(site.add(b"other"))))
    assert prefer(alice, image["id"], "web") == data


def test_a_location_without_a_store_gets_one_by_its_place(placer: Who, open_places: Service) -> None:
    alice = placer("alice")
    image = alice.ready()
    alice.upload(image["id"], b"content", {"x-image-meta-store": "fast"})
    with sqlite3.connect(open_places.database) as database:
        for metadata in ("{}", '{"store": "renamed"}'):
            database.execute("UPDATE image_locations SET meta_data = ? WHERE image_id = ?", (metadata, image["id"]))
            database.commit()
            shown = alice.show(image["id"])
            assert shown["stores"] == shown["locations"][0]["metadata"]["store"] == "fast"
            assert alice.download(image["id"]) == b"content"
