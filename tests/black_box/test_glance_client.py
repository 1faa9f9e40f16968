"""Every subcommand of `glance` for images, members, tags, properties, locations and metadata definitions."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from tests.black_box.cloud import ADMIN, ALT, DEMO, Cloud, is_glance, typed_in
from tests.rig.clients import Clients

CONTENT = bytes(range(256)) * 5000
NOBODY = "00000000-0000-0000-0000-000000000000"
NAMESPACE = "Test::Software"
SEEDS = Path(__file__).parents[2] / "glimpse" / "metadef_seeds"

# What is not run here, and why.
LEFT = {
    "bash-completion": "asks no service",
    "help": "asks no service",
}


def test_every_subcommand_is_run_or_named(clients: Clients) -> None:
    words = clients.glance("bash-completion", env={}).split()
    commands = {word for word in words if not word.startswith("-")} | {"bash-completion"}
    assert len(commands) > 60
    assert typed_in(__file__, "glance") | LEFT.keys() == commands
    assert not typed_in(__file__, "glance") & LEFT.keys()


@pytest.fixture
def image(cloud: Cloud) -> str:
    """The id of a shared, active image of demo's, named `disk`."""
    formats = ["--disk-format", "raw", "--container-format", "bare"]
    made = cloud.glance("image-create", "--name", "disk", *formats, "--file", cloud.file("disk.raw", CONTENT)).fields
    return made["id"]


@pytest.fixture
def namespace(cloud: Cloud) -> str:
    """A public namespace of the admin's."""
    cloud.glance("md-namespace-create", NAMESPACE, "--visibility", "public", user=ADMIN)
    return NAMESPACE


def holds(record: dict[str, str], facts: dict[str, str]) -> None:
    """The record has these fields with these values."""
    assert {name: record.get(name) for name in facts} == facts


def names(cloud: Cloud, *filters: str, user: str = DEMO) -> list[str]:
    """The names in a list of images, in its order."""
    return [row["Name"] for row in cloud.glance("image-list", *filters, user=user).rows]


# --- images ----------------------------------------------------------------------------------------------------------


def test_an_image_comes_is_seen_and_goes(cloud: Cloud) -> None:
    file = cloud.file("disk.raw", CONTENT)
    made = cloud.glance(
        "image-create", "--id", "11111111-2222-3333-4444-555555555556", "--name", "all of it", "--file", file,
        "--disk-format", "raw", "--container-format", "bare", "--min-disk", "2", "--min-ram", "64",
        "--visibility", "private", "--protected", "True", "--hidden", "False", "--os-distro", "debian",
        "--property", "hw_disk_bus=virtio", "--tags", "a", "--store", "fast",
    ).fields  # fmt: skip
    facts = {
        "id": "11111111-2222-3333-4444-555555555556",
        "name": "all of it",
        "status": "active",
        "visibility": "private",
        "protected": "True",
        "os_hidden": "False",
        "disk_format": "raw",
        "container_format": "bare",
        "min_disk": "2",
        "min_ram": "64",
        "size": str(len(CONTENT)),
        "virtual_size": str(len(CONTENT)),
        "checksum": hashlib.md5(CONTENT).hexdigest(),
        "os_hash_algo": "sha512",
        "os_hash_value": hashlib.sha512(CONTENT).hexdigest(),
        "owner": cloud.project_id(DEMO),
        "os_distro": "debian",
        "hw_disk_bus": "virtio",
        "tags": '["a"]',
        "stores": "fast",
    }
    holds(made, facts)
    identity = made["id"]
    holds(cloud.glance("image-show", identity, "--max-column-width", "200").fields, facts)
    assert cloud.glance("image-show", identity, "--human-readable").fields["size"] == "1.2MB"
    protected = cloud.glance("image-delete", identity, code=1)
    assert "not permitted to delete" in protected.err
    cloud.glance("image-update", identity, "--protected", "False")
    assert cloud.glance("image-delete", identity).out == ""
    assert "No image found with ID" in cloud.glance("image-show", identity, code=1).err
    assert f"No image with an ID of '{identity}' exists." in cloud.glance("image-delete", identity, code=1).err


def test_a_record_then_its_bytes(cloud: Cloud) -> None:
    formats = ["--disk-format", "raw", "--container-format", "bare"]
    made = cloud.glance("image-create", "--name", "later", *formats).fields
    assert (made["status"], made["size"]) == ("queued", "None")
    assert "has no data" in cloud.glance("image-download", made["id"], "--file", "nothing", code=1).err
    assert (
        cloud.glance("image-upload", made["id"], "--file", cloud.file("disk.raw", CONTENT), "--store", "fast").out == ""
    )
    assert cloud.glance("image-show", made["id"]).fields["status"] == "active"
    again = cloud.glance("image-upload", made["id"], "--file", cloud.folder / "disk.raw", code=1)
    assert "409" in again.err
    target = cloud.folder / "saved"
    assert cloud.glance("image-download", made["id"], "--file", target).out == ""
    assert target.read_bytes() == CONTENT
    assert cloud.glance("image-download", made["id"], "--prefer", "fast,fs", "--file", target).out == ""
    assert "Unable to download" in cloud.glance("image-download", NOBODY, "--file", target, code=1).err

    piped = cloud.glance("image-create", "--name", "piped", *formats, stdin="some bytes").fields
    assert (piped["status"], piped["size"]) == ("active", "10")
    assert cloud.glance("image-download", piped["id"]).out == "some bytes"
    bad = cloud.glance("image-upload", made["id"], "--store", "nowhere", stdin="x", code=1)
    assert "Store 'nowhere' is not valid" in bad.err


def test_update(cloud: Cloud, image: str) -> None:
    changed = cloud.glance(
        "image-update", image, "--name", "other", "--min-disk", "3", "--min-ram", "128", "--property", "a=1",
        "--property", "b=über", "--os-distro", "fedora", "--architecture", "x86_64", "--hidden", "True",
        "--visibility", "community", "--kernel-id", NOBODY,
    ).fields  # fmt: skip
    facts = {
        "name": "other", "min_disk": "3", "min_ram": "128", "a": "1", "b": "über", "os_distro": "fedora",
        "architecture": "x86_64", "os_hidden": "True", "visibility": "community", "kernel_id": NOBODY,
    }  # fmt: skip
    holds(changed, facts)
    after = cloud.glance(
        "image-update",
        image,
        "--remove-property",
        "a",
        "--property",
        "b=2",
        "--hidden",
        "False",
        "--visibility",
        "shared",
    ).fields
    assert "a" not in after
    holds(after, {"b": "2", "os_hidden": "False", "visibility": "shared"})
    assert "403" in cloud.glance("image-update", image, "--visibility", "public", code=1).err
    assert "is not one of" in cloud.glance("image-update", image, "--disk-format", "nope", code=1).err
    assert "404" in cloud.glance("image-update", NOBODY, "--name", "x", code=1).err
    formats = cloud.glance("image-create", "--name", "formats").fields
    formats = cloud.glance("image-update", formats["id"], "--disk-format", "iso", "--container-format", "bare").fields
    holds(formats, {"disk_format": "iso", "container_format": "bare"})


def test_deactivate_and_reactivate(cloud: Cloud, image: str) -> None:
    assert cloud.glance("image-deactivate", image, user=ADMIN).out == ""
    assert cloud.glance("image-show", image).fields["status"] == "deactivated"
    assert "403" in cloud.glance("image-download", image, "--file", "no", code=1).err
    assert cloud.glance("image-reactivate", image, user=ADMIN).out == ""
    assert cloud.glance("image-show", image).fields["status"] == "active"
    assert "404" in cloud.glance("image-deactivate", NOBODY, user=ADMIN, code=1).err
    assert "404" in cloud.glance("image-reactivate", NOBODY, user=ADMIN, code=1).err


def test_tags(cloud: Cloud, image: str) -> None:
    assert cloud.glance("image-tag-update", image, "red").rows == [{"ID": image, "Tags": "['red']"}]
    cloud.glance("image-tag-update", image, "two words")
    assert sorted(json.loads(cloud.glance("image-show", image).fields["tags"])) == ["red", "two words"]
    assert names(cloud, "--tag", "red") == ["disk"]
    assert cloud.glance("image-tag-delete", image, "two words").out == ""
    assert cloud.glance("image-show", image).fields["tags"] == '["red"]'
    assert "404" in cloud.glance("image-tag-delete", image, "nope", code=1).err
    assert "404" in cloud.glance("image-tag-update", NOBODY, "red", code=1).err


@pytest.mark.better_than_glance
def test_a_tag_keeps_its_letters(cloud: Cloud, image: str) -> None:
    """Glance reads the UTF-8 of a path as Latin-1."""
    cloud.glance("image-tag-update", image, "Füße 映像")
    assert json.loads(cloud.glance("image-show", image).fields["tags"]) == ["Füße 映像"]
    cloud.glance("image-tag-delete", image, "Füße 映像")


def test_lists(cloud: Cloud, image: str) -> None:
    for name, more in {
        "b": ["--tags", "red", "round", "--property", "kind=1"],
        "a": ["--tags", "red", "--visibility", "private"],
        "c": ["--visibility", "community", "--hidden", "True"],
    }.items():
        cloud.glance("image-create", "--name", name, *more)
    assert names(cloud) == ["a", "b", "disk"]
    assert names(cloud, "--page-size", "1") == ["a", "b", "disk"]
    assert names(cloud, "--limit", "2") == ["a", "b"]
    assert names(cloud, "--sort", "name:desc") == ["disk", "b", "a"]
    assert names(cloud, "--sort-key", "status", "--sort-key", "id", "--sort-dir", "asc")[0] == "disk"
    assert names(cloud, "--tag", "red", "--tag", "round") == ["b"]
    assert names(cloud, "--property-filter", "kind=1") == ["b"]
    assert names(cloud, "--property-filter", "name=a") == ["a"]
    assert names(cloud, "--visibility", "private") == ["a"]
    assert names(cloud, "--hidden") == ["c"]
    assert names(cloud, "--owner", cloud.project_id(DEMO), user=ADMIN) == ["a", "b", "disk"]
    assert names(cloud, "--checksum", hashlib.md5(CONTENT).hexdigest()) == ["disk"]
    assert names(cloud, "--hash", hashlib.sha512(CONTENT).hexdigest()) == ["disk"]
    assert names(cloud, user=ALT) == []
    (row,) = cloud.glance("image-list", "--include-stores", "--limit", "1", "--sort", "name:desc").rows
    assert row == {"ID": image, "Name": "disk", "Stores": "fs"}
    assert "400" in cloud.glance("image-list", "--visibility", "nope", code=1).err


# --- import ----------------------------------------------------------------------------------------------------------

FORMATS = ("--disk-format", "raw", "--container-format", "bare")


def imported(cloud: Cloud, identity: str, stores: str, user: str = DEMO) -> dict[str, str]:
    """The image once its import is over; it must be active, in these stores, with the right bytes."""
    record = settled(cloud, identity, user)
    assert record["status"] == "active", cloud.tasks(identity)
    assert ",".join(sorted(record["stores"].split(","))) == stores
    assert record["checksum"] == hashlib.md5(CONTENT).hexdigest()
    target = cloud.folder / "saved"
    cloud.glance("image-download", identity, "--file", target, user=user)
    assert target.read_bytes() == CONTENT
    return record


def settled(cloud: Cloud, identity: str, user: str = DEMO) -> dict[str, str]:
    """The image once no import works on it."""
    deadline = time.monotonic() + 30
    while True:
        record = cloud.glance("image-show", identity, user=user).fields
        if record["status"] != "importing" and "os_glance_import_task" not in record:
            return record
        assert time.monotonic() < deadline, record
        time.sleep(0.2)


def test_staged_then_imported(cloud: Cloud) -> None:
    identity = cloud.glance("image-create", "--name", "staged", *FORMATS).fields["id"]
    refused = cloud.glance("image-import", identity, code=1)
    assert "can only be applied to an image in status 'uploading'" in refused.err
    assert cloud.glance("image-stage", identity, "--file", cloud.file("disk.raw", CONTENT)).out == ""
    holds(cloud.glance("image-show", identity).fields, {"status": "uploading", "size": str(len(CONTENT))})
    assert "409" in cloud.glance("image-stage", identity, stdin="again", code=1).err
    ordered = cloud.glance("image-import", identity, "--import-method", "glance-direct").fields
    assert ordered["id"] == identity
    record = imported(cloud, identity, "fs")
    holds(record, {"os_glance_importing_to_stores": "", "os_glance_failed_import": "", "size": str(len(CONTENT))})
    refused = cloud.glance("image-import", identity, code=1)
    assert "can only be applied to an image in status 'uploading'" in refused.err


def test_staged_from_standard_input(cloud: Cloud) -> None:
    identity = cloud.glance("image-create", "--name", "piped", *FORMATS).fields["id"]
    cloud.glance("image-stage", identity, "--size", "10", stdin="some bytes")
    cloud.glance("image-import", identity, "--stores", "fast,fs")
    record = settled(cloud, identity)
    assert (record["status"], record["size"], sorted(record["stores"].split(","))) == ("active", "10", ["fast", "fs"])
    other = cloud.glance("image-create", "--name", "lies", *FORMATS).fields["id"]
    assert "400" in cloud.glance("image-stage", other, "--size", "11", stdin="some bytes", code=1).err
    assert cloud.glance("image-show", other).fields["status"] == "queued"


def test_created_via_import(cloud: Cloud) -> None:
    """By each method that makes an image of something, and to each choice of stores."""
    file, url = cloud.file("disk.raw", CONTENT), cloud.web.file("disk.raw", CONTENT)
    assert cloud.glance("image-create-via-import", "--name", "record only").fields["status"] == "queued"
    for source in (("--file", file), ("--import-method", "web-download", "--uri", url)):
        for wish, stores in (
            ((), "fs"),
            (("--store", "fast"), "fast"),
            (("--stores", "fast,fs"), "fast,fs"),
            (("--all-stores", "True"), "fast,fs"),
            (("--all-stores", "True", "--allow-failure", "False"), "fast,fs"),
        ):
            made = cloud.glance(
                "image-create-via-import", "--name", "via import", "--property", "kind=1", *FORMATS, *source, *wish
            ).fields
            holds(imported(cloud, made["id"], stores), {"name": "via import", "kind": "1"})
    piped = cloud.glance("image-create-via-import", "--name", "piped", *FORMATS, stdin="some bytes").fields
    assert settled(cloud, piped["id"])["size"] == "10"


def test_what_cannot_be_created_via_import(cloud: Cloud) -> None:
    for arguments, text in (
        (("--import-method", "nope", "--uri", "http://x/"), "Import method 'nope' is not valid for this cloud"),
        (("--import-method", "web-download"), "URI is required for web-download import method"),
        (("--import-method", "glance-direct"), "specify a --file or provide data via stdin"),
        (("--store", "nope", "--file", cloud.file("x", b"x")), "Store 'nope' is not valid for this cloud"),
        (("--import-method", "copy-image"), "Import method 'copy-image' cannot be used while creating the image"),
    ):
        assert text in cloud.glance("image-create-via-import", *FORMATS, *arguments, code=1).err
    forbidden = cloud.glance(
        "image-create-via-import", *FORMATS, "--import-method", "web-download", "--uri", "file:///etc/passwd", code=1
    )
    assert "400" in forbidden.err


def test_from_the_web(cloud: Cloud) -> None:
    url = cloud.web.file("disk.raw", CONTENT)
    identity = cloud.glance("image-create", "--name", "web", *FORMATS).fields["id"]
    web = ("--import-method", "web-download")
    assert "Provide URI" in cloud.glance("image-import", identity, *web, code=1).err
    assert "400" in cloud.glance("image-import", identity, *web, "--uri", "ftp://127.0.0.1/x", code=1).err
    assert "not valid" in cloud.glance("image-import", identity, *web, "--uri", url, "--stores", "x", code=1).err
    cloud.glance("image-import", identity, *web, "--uri", f"{url}.none")
    assert settled(cloud, identity)["status"] == "queued"
    cloud.glance("image-import", identity, *web, "--uri", url, "--all-stores", "True", "--allow-failure", "True")
    imported(cloud, identity, "fast,fs")
    assert "404" in cloud.glance("image-import", NOBODY, *web, "--uri", url, code=1).err


def test_copied_to_other_stores(cloud: Cloud, image: str) -> None:
    copy = ("--import-method", "copy-image")
    assert "403" in cloud.glance("image-import", image, *copy, "--stores", "fast", code=1).err
    cloud.glance("image-import", image, *copy, "--stores", "fast", user=ADMIN)
    imported(cloud, image, "fast,fs")
    assert "400" in cloud.glance("image-import", image, *copy, "--stores", "fast", user=ADMIN, code=1).err
    cloud.glance("image-import", image, *copy, "--all-stores", "True", user=ADMIN)
    imported(cloud, image, "fast,fs")
    target = cloud.folder / "saved"
    for store in ("fs", "fast"):
        cloud.glance("image-download", image, "--prefer", store, "--file", target)
        assert target.read_bytes() == CONTENT
    cloud.glance("stores-delete", "--store", "fs", image, user=ADMIN)
    imported(cloud, image, "fast")


def test_from_another_region(cloud: Cloud, image: str) -> None:
    """The region is this cloud's own: a service does not mind asking itself."""
    remote = ("--import-method", "glance-download", "--remote-region", "RegionOne", "--remote-image-id", image)
    made = cloud.glance("image-create-via-import", "--name", "downloaded", *FORMATS, *remote).fields
    holds(imported(cloud, made["id"], "fs"), {"name": "downloaded", "disk_format": "raw"})
    identity = cloud.glance("image-create", "--name", "later", *FORMATS).fields["id"]
    assert cloud.glance("image-import", identity, *remote[:4], code=1).err
    nobody = (*remote[:4], "--remote-image-id", NOBODY)
    cloud.glance("image-import", identity, *nobody)
    assert settled(cloud, identity)["status"] == "queued"
    cloud.glance("image-import", identity, *remote, "--remote-service-interface", "public", "--stores", "fast,fs")
    imported(cloud, identity, "fast,fs")


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_sharing(cloud: Cloud, image: str) -> None:
    alt = cloud.project_id(ALT)
    one = {"Image ID": image, "Member ID": alt, "Status": "pending"}
    assert cloud.glance("member-create", image, alt).rows == [one]
    assert "409" in cloud.glance("member-create", image, alt, code=1).err
    assert cloud.glance("member-list", "--image-id", image).rows == [one]
    holds(cloud.glance("member-get", image, alt).fields, {"image_id": image, "member_id": alt, "status": "pending"})
    assert cloud.glance("image-show", image, user=ALT).fields["name"] == "disk"
    assert names(cloud, user=ALT) == []
    assert names(cloud, "--visibility", "shared", "--member-status", "pending", user=ALT) == ["disk"]
    assert "403" in cloud.glance("member-update", image, alt, "accepted", code=1).err
    accepted = cloud.glance("member-update", image, alt, "accepted", user=ALT).rows
    assert accepted == [{**one, "Status": "accepted"}]
    assert names(cloud, user=ALT) == ["disk"]
    assert "invalid choice" in cloud.glance("member-update", image, alt, "maybe", user=ALT, code=2).err
    assert "403" in cloud.glance("member-create", image, cloud.project_id(ADMIN), user=ALT, code=1).err
    assert cloud.glance("member-delete", image, alt).out == ""
    assert cloud.glance("member-list", "--image-id", image).rows == []
    assert "404" in cloud.glance("member-get", image, alt, code=1).err
    assert "404" in cloud.glance("member-delete", image, alt, code=1).err
    cloud.glance("image-update", image, "--visibility", "private")
    assert "403" in cloud.glance("member-list", "--image-id", image, code=1).err
    assert "403" in cloud.glance("member-create", image, alt, code=1).err


# --- locations -------------------------------------------------------------------------------------------------------


def test_locations_as_a_property(cloud: Cloud) -> None:
    url, other = (cloud.web.file(name, CONTENT) for name in ("one.raw", "other.raw"))
    formats = ["--disk-format", "raw", "--container-format", "bare"]
    identity = cloud.glance("image-create", "--name", "elsewhere", *formats).fields["id"]
    added = cloud.glance("location-add", identity, "--url", url, "--metadata", '{"place": "here"}').fields
    holds(added, {"status": "active", "size": str(len(CONTENT))})
    cloud.glance("location-add", identity, "--url", other)
    changed = cloud.glance("location-update", identity, "--url", url, "--metadata", '{"place": "there"}').fields
    assert '"place": "there"' in changed["locations"]
    assert '"place": "here"' not in changed["locations"]
    assert other in changed["locations"].replace(" ", "")
    target = cloud.folder / "saved"
    cloud.glance("image-download", identity, "--file", target)
    assert target.read_bytes() == CONTENT
    assert "403" in cloud.glance("location-delete", identity, "--url", other, code=1).err
    assert cloud.glance("location-delete", identity, "--url", other, user=ADMIN).out == ""
    left = cloud.glance("image-show", identity, "--max-column-width", "300").fields["locations"]
    assert [url] == [location["url"] for location in json.loads(left)]
    assert (
        "not a valid JSON object" in cloud.glance("location-add", identity, "--url", url, "--metadata", "x", code=1).err
    )
    assert "400" in cloud.glance("location-add", identity, "--url", "file:///etc/passwd", code=1).err
    assert "Unknown URL" in cloud.glance("location-delete", identity, "--url", other, user=ADMIN, code=1).err


def test_a_location_by_its_own_call(cloud: Cloud) -> None:
    url = cloud.web.file("one.raw", CONTENT)
    formats = ["--disk-format", "raw", "--container-format", "bare"]
    identity = cloud.glance("image-create", "--name", "elsewhere", *formats).fields["id"]
    sha = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(CONTENT).hexdigest()}
    cloud.glance("add-location", identity, "--url", url, "--validation-data", json.dumps(sha))
    end = time.monotonic() + 30
    while (shown := cloud.glance("image-show", identity, "--max-column-width", "200").fields)["status"] != "active":
        assert time.monotonic() < end, shown
        time.sleep(0.2)
    holds(shown, {**sha, "size": str(len(CONTENT))})
    (task,) = cloud.glance("image-tasks", identity).rows
    holds(task, {"Status": "success"})
    assert f"Image {NOBODY} not found" in cloud.glance("image-tasks", NOBODY, code=1).err
    assert "409" in cloud.glance("add-location", identity, "--url", url, code=1).err
    assert "404" in cloud.glance("add-location", NOBODY, "--url", url, code=1).err


def test_tasks(cloud: Cloud) -> None:
    source = {"import_from": cloud.web.file("task.raw", CONTENT), "import_from_format": "raw"}
    described = {"name": "by a task", "disk_format": "raw", "container_format": "bare"}
    order = ["--type", "import", "--input", json.dumps({**source, "image_properties": described})]
    made = cloud.glance("task-create", *order, user=ADMIN).fields
    holds(made, {"type": "import", "status": "pending", "owner": cloud.project_id(ADMIN)})
    shown = cloud.glance("task-show", made["id"], user=ADMIN).fields
    holds(shown, {name: made[name] for name in ("id", "type", "owner", "created_at", "input")})
    rows = cloud.glance("task-list", "--type", "import", "--sort-key", "id", "--page-size", "1", user=ADMIN).rows
    (row,) = [each for each in rows if each["ID"] == made["id"]]
    holds(row, {"Type": "import", "Owner": made["owner"]})
    if not is_glance():  # its own imports of this kind fail: "Task failed due to Internal Error"
        end = time.monotonic() + 30
        while (shown := cloud.glance("task-show", made["id"], user=ADMIN).fields)["status"] != "success":
            assert time.monotonic() < end, shown
            time.sleep(0.2)
        assert names(cloud, user=ADMIN) == ["by a task"]
    failed = cloud.glance("task-list", "--status", "failure", "--sort-dir", "asc", user=ADMIN).rows
    assert {row["Status"] for row in failed} <= {"failure"}
    assert "403" in cloud.glance("task-list", code=1).err
    assert "403" in cloud.glance("task-create", *order, code=1).err
    assert NOBODY in cloud.glance("task-show", NOBODY, user=ADMIN, code=1).err
    inside = ["--type", "import", "--input", json.dumps({**source, "import_from": "file:///etc/passwd"})]
    assert "400" in cloud.glance("task-create", *inside, user=ADMIN, code=1).err


def test_leaving_a_store(cloud: Cloud, image: str) -> None:
    assert "403" in cloud.glance("stores-delete", image, "--store", "fs", code=1).err
    only = cloud.glance("stores-delete", image, "--store", "fs", user=ADMIN, code=1)
    assert f"Unable to delete image '{image}' from store 'fs'" in only.err
    assert "403" in only.err
    assert "409" in cloud.glance("stores-delete", image, "--store", "nowhere", user=ADMIN, code=1).err
    url = cloud.web.file("one.raw", CONTENT)
    cloud.glance("location-add", image, "--url", url)
    assert cloud.glance("image-show", image).fields["stores"] == "fs,web"
    assert cloud.glance("stores-delete", image, "--store", "fs", user=ADMIN).out == ""
    assert cloud.glance("image-show", image).fields["stores"] == "web"
    target = cloud.folder / "saved"
    cloud.glance("image-download", image, "--file", target)
    assert target.read_bytes() == CONTENT


# --- what the service can do ------------------------------------------------------------------------------------------


def test_what_the_service_can_do(cloud: Cloud) -> None:
    stores = json.loads(cloud.glance("stores-info").fields["stores"])
    assert [store["id"] for store in stores] == ["fs", "fast", "web"]
    assert stores[0]["default"] == stores[2]["read-only"] == "true"
    details = json.loads(cloud.glance("stores-info", "--detail", user=ADMIN).fields["stores"])
    assert details[0]["properties"]["data_dir"].endswith("/images")
    assert "403" in cloud.glance("stores-info", "--detail", code=1).err
    methods = json.loads(cloud.glance("import-info").fields["import-methods"])
    assert methods["value"] == ["glance-direct", "web-download", "copy-image", "glance-download"]
    for model, attribute in {"image": "disk_format", "metadefs/namespace": "namespace", "member": "member_id"}.items():
        assert attribute in [row["Attribute"] for row in cloud.glance("explain", model).rows]
    assert "Unable to find requested model 'nope'" in cloud.glance("explain", "nope", code=1).err


def test_usage(cloud: Cloud, image: str) -> None:
    table = {row["Quota"]: (row["Limit"], row["Usage"]) for row in cloud.glance("usage").rows}
    assert table == {
        "image_size_total": ("1000", "1"),
        "image_stage_total": ("1000", "0"),
        "image_count_total": ("100", "1"),
        "image_count_uploading": ("100", "0"),
    }


# --- metadata definitions ---------------------------------------------------------------------------------------------


def test_namespaces(cloud: Cloud) -> None:
    made = cloud.glance(
        "md-namespace-create", NAMESPACE, "--display-name", "Software", "--description", "Of tests",
        "--visibility", "public", "--protected", "True", user=ADMIN,
    ).fields  # fmt: skip
    facts = {
        "namespace": NAMESPACE,
        "display_name": "Software",
        "description": "Of tests",
        "visibility": "public",
        "protected": "True",
        "owner": cloud.project_id(ADMIN),
    }
    holds(made, facts)
    holds(cloud.glance("md-namespace-show", NAMESPACE).fields, facts)
    assert "409" in cloud.glance("md-namespace-create", NAMESPACE, user=ADMIN, code=1).err
    assert "403" in cloud.glance("md-namespace-create", "Test::Mine", code=1).err
    assert "403" in cloud.glance("md-namespace-delete", NAMESPACE, user=ADMIN, code=1).err
    changed = cloud.glance(
        "md-namespace-update", NAMESPACE, "--namespace", "Test::Renamed", "--display-name", "Other", "--visibility",
        "private", "--protected", "False", user=ADMIN,
    ).fields  # fmt: skip
    holds(changed, {"namespace": "Test::Renamed", "display_name": "Other", "visibility": "private"})
    assert "404" in cloud.glance("md-namespace-show", NAMESPACE, code=1).err
    assert "404" in cloud.glance("md-namespace-show", "Test::Renamed", code=1).err
    assert cloud.glance("md-namespace-delete", "Test::Renamed", user=ADMIN).out == ""
    assert "404" in cloud.glance("md-namespace-show", "Test::Renamed", user=ADMIN, code=1).err


def test_lists_of_namespaces(cloud: Cloud, namespace: str) -> None:
    cloud.glance("md-namespace-create", "Test::Private", user=ADMIN)

    def found(*filters: str, user: str = ADMIN) -> list[str]:
        return sorted(row["namespace"] for row in cloud.glance("md-namespace-list", *filters, user=user).rows)

    assert found() == found("--page-size", "1") == ["Test::Private", namespace]
    assert found(user=DEMO) == [namespace]
    assert found("--visibility", "private") == ["Test::Private"]
    cloud.glance("md-resource-type-associate", namespace, "--name", "Test::Thing", user=ADMIN)
    assert found("--resource-types", "Test::Thing") == [namespace]


def test_a_whole_namespace_from_a_file(cloud: Cloud) -> None:
    whole = {
        "namespace": NAMESPACE,
        "visibility": "public",
        "resource_type_associations": [{"name": "Test::Image", "prefix": "sw_"}],
        "properties": {"version": {"title": "Version", "type": "string"}},
        "objects": [{"name": "db", "properties": {"port": {"title": "Port", "type": "integer"}}}],
        "tags": [{"name": "good"}],
    }
    file = cloud.file("namespace.json", json.dumps(whole).encode())
    made = cloud.glance("md-namespace-import", "--file", file, user=ADMIN).fields
    facts = {"resource_type_associations": '["Test::Image"]', "properties": '["version"]', "objects": '["db"]'}
    holds(made, facts)
    holds(cloud.glance("md-namespace-show", NAMESPACE).fields, {**facts, "tags": '["good"]'})
    prefixed = cloud.glance("md-namespace-show", NAMESPACE, "--resource-type", "Test::Image").fields
    assert prefixed["properties"] == '["sw_version"]'
    again = cloud.glance("md-namespace-import", stdin=json.dumps(whole), user=ADMIN, code=1)
    assert "409" in again.err
    assert "not a valid JSON object" in cloud.glance("md-namespace-import", stdin="{", user=ADMIN, code=1).err


def test_the_shipped_definitions(cloud: Cloud) -> None:
    """The files that come with Glimpse, as `glance-manage` loads them."""
    made = {seed["namespace"]: seed for seed in (json.loads(path.read_text()) for path in SEEDS.iterdir())}
    cloud.service.manage("db_load_metadefs", str(SEEDS))
    listed = cloud.glance("md-namespace-list", user=ADMIN).rows  # more than one page
    assert sorted(row["namespace"] for row in listed) == sorted(made)
    for flavor in ("OS::Nova::Flavor", "OS::Trove::Instance"):
        found = cloud.glance("md-namespace-list", "--resource-types", flavor, user=ADMIN).rows
        wanted = [
            name
            for name, seed in made.items()
            if flavor in [association["name"] for association in seed["resource_type_associations"]]
        ]
        assert sorted(row["namespace"] for row in found) == sorted(wanted)
    whole = cloud.glance("md-namespace-show", "OS::Software::DBMS").fields
    assert len(json.loads(whole["objects"])) == 12
    for_flavors = cloud.glance("md-namespace-show", "OS::Compute::CPUPinning", "--resource-type", "OS::Nova::Flavor")
    assert sorted(json.loads(for_flavors.fields["properties"])) == ["hw:cpu_policy", "hw:cpu_thread_policy"]


def test_properties_of_a_namespace(cloud: Cloud, namespace: str) -> None:
    schema = json.dumps({"enum": ["ide", "scsi"], "default": "ide", "operators": ["<or>"]})
    like = ["--name", "bus", "--title", "Bus", "--type", "string", "--schema", schema]
    made = cloud.glance("md-property-create", namespace, *like, user=ADMIN).fields
    facts = {"name": "bus", "title": "Bus", "type": "string", "enum": '["ide", "scsi"]', "default": "ide"}
    holds(made, facts)
    holds(cloud.glance("md-property-show", namespace, "bus").fields, facts)
    assert cloud.glance("md-property-list", namespace).rows == [{"name": "bus", "title": "Bus", "type": "string"}]
    assert "409" in cloud.glance("md-property-create", namespace, *like, user=ADMIN, code=1).err
    assert "403" in cloud.glance("md-property-create", namespace, *like, code=1).err
    changed = cloud.glance(
        "md-property-update", namespace, "bus", "--name", "line", "--title", "Line",
        "--schema", '{"type": "string", "enum": ["usb"]}', user=ADMIN,
    ).fields  # fmt: skip
    holds(changed, {"name": "line", "title": "Line", "enum": '["usb"]'})
    assert "404" in cloud.glance("md-property-show", namespace, "bus", code=1).err
    cloud.glance("md-property-create", namespace, *like, user=ADMIN)
    assert cloud.glance("md-property-delete", namespace, "line", user=ADMIN).out == ""
    assert "404" in cloud.glance("md-property-delete", namespace, "line", user=ADMIN, code=1).err
    assert len(cloud.glance("md-property-list", namespace).rows) == 1
    assert cloud.glance("md-namespace-properties-delete", namespace, user=ADMIN).out == ""
    assert cloud.glance("md-property-list", namespace).rows == []


def test_objects_of_a_namespace(cloud: Cloud, namespace: str) -> None:
    schema = {
        "description": "A disk",
        "required": ["size"],
        "properties": {"size": {"title": "Size", "type": "integer", "minimum": 1}},
    }
    like = ["--name", "disk", "--schema", json.dumps(schema)]
    made = cloud.glance("md-object-create", namespace, *like, user=ADMIN).fields
    facts = {"name": "disk", "description": "A disk", "required": '["size"]', "properties": '["size"]'}
    holds(made, facts)
    holds(cloud.glance("md-object-show", namespace, "disk").fields, facts)
    assert cloud.glance("md-object-list", namespace).rows == [{"name": "disk", "description": "A disk"}]
    size = cloud.glance("md-object-property-show", namespace, "disk", "size").fields
    holds(size, {"name": "size", "title": "Size", "type": "integer", "minimum": "1"})
    assert "Property nope not found" in cloud.glance("md-object-property-show", namespace, "disk", "nope", code=1).err
    assert "409" in cloud.glance("md-object-create", namespace, *like, user=ADMIN, code=1).err
    changed = cloud.glance(
        "md-object-update", namespace, "disk", "--name", "drive", "--schema", '{"description": "New"}', user=ADMIN
    ).fields
    holds(changed, {"name": "drive", "description": "New"})
    assert "404" in cloud.glance("md-object-show", namespace, "disk", code=1).err
    cloud.glance("md-object-create", namespace, *like, user=ADMIN)
    assert cloud.glance("md-object-delete", namespace, "drive", user=ADMIN).out == ""
    assert "404" in cloud.glance("md-object-delete", namespace, "drive", user=ADMIN, code=1).err
    assert cloud.glance("md-namespace-objects-delete", namespace, user=ADMIN).out == ""
    assert cloud.glance("md-object-list", namespace).rows == []


def test_tags_of_a_namespace(cloud: Cloud, namespace: str) -> None:
    def listed() -> list[str]:
        return sorted(row["name"] for row in cloud.glance("md-tag-list", namespace).rows)

    made = cloud.glance("md-tag-create", namespace, "--name", "one", user=ADMIN).fields
    assert made["name"] == "one"
    assert "409" in cloud.glance("md-tag-create", namespace, "--name", "one", user=ADMIN, code=1).err
    assert "403" in cloud.glance("md-tag-create", namespace, "--name", "two", code=1).err
    assert cloud.glance("md-tag-show", namespace, "one").fields["name"] == "one"
    assert "404" in cloud.glance("md-tag-show", namespace, "nope", code=1).err
    created = cloud.glance("md-tag-create-multiple", namespace, "--names", "a,b,c", user=ADMIN).rows
    assert sorted(row["name"] for row in created) == ["a", "b", "c"]
    assert listed() == ["a", "b", "c"]
    # `--append` fails inside this release of the client
    cloud.glance("md-tag-create-multiple", namespace, "--names", "a:b:d", "--delim", ":", user=ADMIN)
    assert listed() == ["a", "b", "d"]
    assert cloud.glance("md-tag-update", namespace, "a", "--name", "z", user=ADMIN).fields["name"] == "z"
    assert "409" in cloud.glance("md-tag-update", namespace, "b", "--name", "z", user=ADMIN, code=1).err
    assert cloud.glance("md-tag-delete", namespace, "z", user=ADMIN).out == ""
    assert "404" in cloud.glance("md-tag-delete", namespace, "z", user=ADMIN, code=1).err
    assert listed() == ["b", "d"]
    assert cloud.glance("md-namespace-tags-delete", namespace, user=ADMIN).out == ""
    assert listed() == []


def test_resource_types_of_a_namespace(cloud: Cloud, namespace: str) -> None:
    like = ["--name", "Test::Image", "--prefix", "sw_", "--properties-target", "image"]
    made = cloud.glance("md-resource-type-associate", namespace, *like, user=ADMIN).fields
    holds(made, {"name": "Test::Image", "prefix": "sw_", "properties_target": "image"})
    one = {"name": "Test::Image", "prefix": "sw_", "properties_target": "image"}
    assert cloud.glance("md-namespace-resource-type-list", namespace).rows == [one]
    assert {"name": "Test::Image"} in cloud.glance("md-resource-type-list").rows
    assert "409" in cloud.glance("md-resource-type-associate", namespace, *like, user=ADMIN, code=1).err
    assert "403" in cloud.glance("md-resource-type-associate", namespace, *like, code=1).err
    assert cloud.glance("md-resource-type-deassociate", namespace, "Test::Image", user=ADMIN).out == ""
    assert "404" in cloud.glance("md-resource-type-deassociate", namespace, "Test::Image", user=ADMIN, code=1).err
    assert cloud.glance("md-namespace-resource-type-list", namespace).rows == []


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache(cloud: Cloud, image: str) -> None:
    def listed() -> dict[str, str]:
        """What is in the cache, or on its way there, and how it is called."""
        rows = cloud.glance("cache-list", user=ADMIN).rows
        return {row["ID"]: row["State"] for row in rows}

    def wait_for(state: dict[str, str]) -> None:
        deadline = time.monotonic() + 30
        while listed() != state:
            assert time.monotonic() < deadline, listed()
            time.sleep(0.2)

    cloud.glance("cache-clear", user=ADMIN)
    assert listed() == {}
    assert cloud.glance("cache-queue", image, user=ADMIN).out == ""
    wait_for({image: "cached"})
    nodes = cloud.glance("cache-nodes-list", image, user=ADMIN).rows
    assert nodes == [{"Node Reference URL": "http://node.example.org:9292"}]
    assert cloud.glance("image-download", image, "--file", cloud.folder / "saved").out == ""
    assert (cloud.folder / "saved").read_bytes() == CONTENT
    assert cloud.glance("cache-clean", user=ADMIN).out == ""
    assert cloud.glance("cache-prune", user=ADMIN).out == "Pruned 0 file(s), 0 byte(s).\n"
    assert listed() == {image: "cached"}
    assert cloud.glance("cache-clear", "--target", "queue", user=ADMIN).out == ""
    assert listed() == {image: "cached"}
    assert cloud.glance("cache-delete", image, user=ADMIN).out == ""
    assert listed() == {}
    cloud.glance("cache-queue", image, user=ADMIN)
    wait_for({image: "cached"})
    assert cloud.glance("cache-clear", "--target", "cache", user=ADMIN).out == ""
    assert listed() == {}
    assert cloud.glance("cache-nodes-list", image, user=ADMIN).rows == []
    assert "Unable to queue" in cloud.glance("cache-queue", NOBODY, user=ADMIN).err
    assert "Unable to delete" in cloud.glance("cache-delete", NOBODY, user=ADMIN).err
    assert "not permitted" in cloud.glance("cache-queue", image).err
    assert "not permitted" in cloud.glance("cache-prune").err
    assert "not permitted" in cloud.glance("cache-nodes-list", image).err


# --- signing in -------------------------------------------------------------------------------------------------------


def test_with_a_password(cloud: Cloud, clients: Clients, image: str) -> None:
    assert image in clients.glance("image-list", env=cloud.rc(DEMO))
    assert clients.run("glance", "image-download", image, env=cloud.rc(DEMO)) == CONTENT
