"""Every subcommand of `openstack` for images, members, tags, properties and metadata definitions."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest

from tests.black_box.cloud import ADMIN, ALT, DEMO, Cloud, typed_in
from tests.rig.clients import Clients

CONTENT = bytes(range(256)) * 5000
NOBODY = "00000000-0000-0000-0000-000000000000"
NAMESPACE = "Test::Hardware"


def test_every_subcommand_is_run(clients: Clients) -> None:
    text = clients.openstack("command", "list", "--group", "openstack.image.v2", "-f", "json", env={})
    (group,) = json.loads(text)
    commands = set(group["Commands"])
    assert len(commands) > 40
    assert typed_in(__file__, "openstack") == commands


@pytest.fixture
def image(cloud: Cloud) -> str:
    """The id of a shared, active image of demo's, named `disk`."""
    file = cloud.file("disk.raw", CONTENT)
    identity: str = cloud.openstack("image create", "disk", "--file", file, "--shared", "-f", "json").json["id"]
    return identity


@pytest.fixture
def namespace(cloud: Cloud) -> str:
    """A public namespace of the admin's."""
    cloud.openstack("image metadef namespace create", NAMESPACE, "--public", user=ADMIN)
    return NAMESPACE


def holds(record: dict[str, Any], facts: dict[str, Any]) -> None:
    """The record has these fields with these values."""
    assert {name: record.get(name) for name in facts} == facts


def shown(cloud: Cloud, identity: str, user: str = DEMO) -> dict[str, Any]:
    """An image as `openstack image show` has it."""
    record: dict[str, Any] = cloud.openstack("image show", identity, "-f", "json", user=user).json
    return record


def names(cloud: Cloud, *filters: str, user: str = DEMO) -> list[str]:
    """The names in a list of images, in its order."""
    found = cloud.openstack("image list", *filters, "-f", "json", user=user).json
    return [entry["Name"] for entry in found]


# --- images ----------------------------------------------------------------------------------------------------------


def test_an_image_comes_is_seen_and_goes(cloud: Cloud) -> None:
    file = cloud.file("disk.raw", CONTENT)
    made = cloud.openstack(
        "image create", "all of it", "--id", "11111111-2222-3333-4444-555555555555", "--file", file,
        "--disk-format", "raw", "--container-format", "bare", "--min-disk", "2", "--min-ram", "64", "--private",
        "--protected", "--property", "os_distro=debian", "--property", "hw_disk_bus=virtio", "--tag", "a", "--tag", "b",
        "-f", "json",
    ).json  # fmt: skip
    assert made["id"] == "11111111-2222-3333-4444-555555555555"
    record = shown(cloud, "all of it")
    assert record == shown(cloud, made["id"])
    expected = {
        "id": made["id"],
        "name": "all of it",
        "status": "active",
        "visibility": "private",
        "protected": True,
        "disk_format": "raw",
        "container_format": "bare",
        "min_disk": 2,
        "min_ram": 64,
        "size": len(CONTENT),
        "virtual_size": len(CONTENT),
        "checksum": hashlib.md5(CONTENT).hexdigest(),
        "owner": cloud.project_id(DEMO),
        "tags": ["a", "b"],
        "file": f"/v2/images/{made['id']}/file",
        "schema": "/v2/schemas/image",
    }
    holds({**record, "tags": sorted(record["tags"])}, expected)
    holds(record["properties"], {"os_distro": "debian", "hw_disk_bus": "virtio", "os_hidden": False})
    assert record["properties"]["os_hash_value"] == hashlib.sha512(CONTENT).hexdigest()
    assert cloud.openstack("image show", made["id"], "--human-readable").fields["size"] == "1.3M"
    assert "1 of 1 images" in cloud.openstack("image delete", made["id"], code=1).err
    cloud.openstack("image set", made["id"], "--unprotected")
    assert cloud.openstack("image delete", made["id"]).out == ""
    assert cloud.openstack("image show", made["id"], code=1).err.strip() == f"No Image found for {made['id']}"
    # what this client makes of a 404
    assert "Multi Backend support not enabled" in cloud.openstack("image delete", made["id"], code=1).err


def test_image_without_bytes_and_from_standard_input(cloud: Cloud) -> None:
    queued = cloud.openstack("image create", "empty").fields
    assert queued["status"] == "queued"
    piped = cloud.openstack("image create", "piped", "-f", "json", stdin="some bytes").json
    assert (piped["status"], piped["size"]) == ("active", 10)
    assert shown(cloud, "piped")["checksum"] == hashlib.md5(b"some bytes").hexdigest()
    # the same ID twice
    again = cloud.openstack("image create", "again", "--id", piped["id"], code=1)
    assert "409" in again.err
    cloud.openstack("image delete", "empty", "piped")


def test_save(cloud: Cloud, image: str) -> None:
    target = cloud.folder / "saved"
    assert cloud.openstack("image save", image, "--file", target).out == ""
    assert target.read_bytes() == CONTENT
    target.unlink()
    cloud.openstack("image save", "disk", "--file", target, "--chunk-size", "1000")
    assert target.read_bytes() == CONTENT
    assert cloud.openstack("image save", NOBODY, "--file", target, code=1).err.startswith("No Image found")


def test_set_and_unset(cloud: Cloud, image: str) -> None:
    changed = cloud.openstack(
        "image set", image, "--name", "other", "--min-disk", "3", "--min-ram", "128", "--property", "a=1",
        "--property", "b=2", "--property", "with space=über", "--tag", "x", "--tag", "y z", "--os-distro", "fedora",
        "--os-version", "40", "--architecture", "x86_64", "--hidden", "--community", "--protected",
    )  # fmt: skip
    assert changed.out == changed.err == ""
    record = shown(cloud, image)
    holds(record, {"name": "other", "min_disk": 3, "min_ram": 128, "visibility": "community", "protected": True})
    assert sorted(record["tags"]) == ["x", "y z"]
    wanted = {"a": "1", "b": "2", "with space": "über", "os_distro": "fedora", "os_version": "40", "os_hidden": True}
    holds(record["properties"], wanted)
    assert record["properties"]["architecture"] == "x86_64"

    cloud.openstack("image unset", image, "--tag", "y z", "--property", "a", "--property", "with space")
    cloud.openstack(
        "image set", image, "--unprotected", "--unhidden", "--shared", "--property", "b=3", "--name", "disk"
    )
    record = shown(cloud, image)
    assert record["tags"] == ["x"]
    holds(record["properties"], {"b": "3", "os_hidden": False})
    assert not {"a", "with space"} & record["properties"].keys()

    missing = cloud.openstack("image unset", image, "--tag", "nope", "--property", "nope", code=1)
    assert "Failed to unset 1 of 1 tags,Failed to unset 1 of 1 properties." in missing.err
    assert "invalid choice" in cloud.openstack("image set", image, "--disk-format", "nope", code=2).err
    assert "403" in cloud.openstack("image set", image, "--public", code=1).err
    assert cloud.openstack("image set", NOBODY, "--name", "x", code=1).err.startswith("No Image found")


def test_formats_of_an_image_without_bytes(cloud: Cloud) -> None:
    cloud.openstack("image create", "formats")
    cloud.openstack("image set", "formats", "--disk-format", "qcow2", "--container-format", "docker")
    record = shown(cloud, "formats")
    assert (record["disk_format"], record["container_format"]) == ("qcow2", "docker")
    cloud.openstack("image delete", "formats")


def test_deactivate_and_activate(cloud: Cloud, image: str) -> None:
    assert cloud.openstack("image set", image, "--deactivate", user=ADMIN).out == ""
    assert shown(cloud, image)["status"] == "deactivated"
    # the SDK does not look at the status code, but at the checksum of what came
    assert "Unable to download image" in cloud.openstack("image save", image, "--file", "no", code=1).err
    cloud.openstack("image set", image, "--activate", user=ADMIN)
    assert shown(cloud, image)["status"] == "active"


def test_only_an_admin_gives_away_and_publishes(cloud: Cloud, image: str) -> None:
    assert "403" in cloud.openstack("image create", "p", "--public", code=1).err
    cloud.openstack("image set", image, "--public", user=ADMIN)
    assert "disk" in names(cloud, "--public", user=ALT)
    assert shown(cloud, image, ALT)["visibility"] == "public"
    assert "403" in cloud.openstack("image set", image, "--name", "mine", user=ALT, code=1).err
    assert "403" in cloud.openstack("image delete", image, user=ALT, code=1).err
    cloud.openstack("image set", image, "--shared", user=ADMIN)
    cloud.openstack("image set", image, "--project", "alt", user=ADMIN)
    assert shown(cloud, image, ALT)["owner"] == cloud.project_id(ALT)
    cloud.openstack("image set", image, "--project", "demo", user=ADMIN)


def test_lists(cloud: Cloud, image: str) -> None:
    for name, more in {
        "b": ["--tag", "red", "--tag", "round", "--property", "kind=1"],
        "a": ["--tag", "red", "--private"],
        "c": ["--community"],
    }.items():
        cloud.openstack("image create", name, *more)
    cloud.openstack("image set", "c", "--hidden")
    assert names(cloud) == ["a", "b", "disk"]
    assert names(cloud, "--sort", "name:desc") == ["disk", "b", "a"]
    page = cloud.openstack("image list", "--limit", "2", "--sort", "created_at:desc,id:desc", "-f", "json").json
    assert len(page) == 2
    # the client sorts what came, the service has its own order: the marker is the last in that one
    rest = {name for entry in page for name in names(cloud, "--limit", "2", "--marker", entry["ID"])}
    assert rest - {entry["Name"] for entry in page} == {"a", "b", "disk"} - {entry["Name"] for entry in page}
    assert names(cloud, "--name", "a") == ["a"]
    assert names(cloud, "--name", "nope") == []
    assert names(cloud, "--tag", "red") == ["a", "b"]
    assert names(cloud, "--tag", "red", "--tag", "round") == ["b"]
    assert names(cloud, "--property", "kind=1") == ["b"]
    assert names(cloud, "--status", "active") == ["disk"]
    assert names(cloud, "--private") == ["a"]
    assert names(cloud, "--shared") == ["b", "disk"]
    assert names(cloud, "--all") == ["a", "b", "disk"]
    assert names(cloud, "--hidden") == ["c"]
    assert names(cloud, "--public") == []
    assert names(cloud, "--project", "demo", user=ADMIN) == ["a", "b", "disk"]
    assert names(cloud, user=ALT) == []
    table = cloud.openstack("image list", "--long", "--name", "disk").rows
    assert list(table[0]) == [
        "ID", "Name", "Disk Format", "Container Format", "Size", "Checksum", "Status", "Visibility", "Protected",
        "Project", "Hash Algorithm", "Hash Value", "Tags",
    ]  # fmt: skip
    assert (table[0]["ID"], table[0]["Size"], table[0]["Hash Algorithm"]) == (image, str(len(CONTENT)), "sha512")
    assert names(cloud, "--status", "nope") == []
    cloud.openstack("image delete", "a", "b", "c")


def test_delete_from_one_store(cloud: Cloud, image: str) -> None:
    refused = cloud.openstack("image delete", image, "--store", "fs", user=ADMIN, code=1)
    assert "403" in refused.err
    assert "Failed to delete 1 of 1 images" in refused.err
    cloud.glance("location-add", image, "--url", cloud.web.file("copy.raw", CONTENT))
    cloud.openstack("image delete", image, "--store", "fs", user=ADMIN)
    assert shown(cloud, image)["properties"]["stores"] == "web"


# --- import ----------------------------------------------------------------------------------------------------------


def imported(cloud: Cloud, identity: str, stores: str) -> dict[str, Any]:
    """The image once its import is over; it must be active, in these stores, with the right bytes."""
    record = settled(cloud, identity)
    assert record["status"] == "active", cloud.tasks(identity)
    assert ",".join(sorted(record["properties"]["stores"].split(","))) == stores
    assert record["checksum"] == hashlib.md5(CONTENT).hexdigest()
    target = cloud.folder / "saved"
    cloud.openstack("image save", identity, "--file", target)
    assert target.read_bytes() == CONTENT
    return record


def settled(cloud: Cloud, identity: str) -> dict[str, Any]:
    """The image once no import works on it."""
    deadline = time.monotonic() + 30
    while True:
        record = shown(cloud, identity)
        if record["status"] != "importing" and "os_glance_import_task" not in record["properties"]:
            return record
        assert time.monotonic() < deadline, record
        time.sleep(0.2)


def test_staged_then_imported(cloud: Cloud) -> None:
    identity = cloud.openstack("image create", "staged", "-f", "json").json["id"]
    assert "in status 'uploading'" in cloud.openstack("image import", "staged", code=1).err
    assert cloud.openstack("image stage", "staged", "--file", cloud.file("disk.raw", CONTENT)).out == ""
    holds(shown(cloud, identity), {"status": "uploading", "size": len(CONTENT)})
    assert "only possible for images in the queued state" in cloud.openstack("image stage", identity, code=1).err
    ordered = cloud.openstack("image import", "staged", "--method", "glance-direct", "-f", "json").json
    assert ordered["id"] == identity
    imported(cloud, identity, "fs")
    assert "in status 'uploading'" in cloud.openstack("image import", identity, code=1).err
    piped = cloud.openstack("image create", "piped", "-f", "json").json["id"]
    cloud.openstack("image stage", "piped", "--size", "10", stdin="some bytes")
    done = cloud.openstack("image import", "piped", "--store", "fast", "fs", "--wait", "-f", "json").json
    assert (done["id"], shown(cloud, piped)["status"], shown(cloud, piped)["size"]) == (piped, "active", 10)


@pytest.mark.parametrize(
    ("wish", "stores"),
    [
        ((), "fs"),
        (("--store", "fast"), "fast"),
        (("--store", "fast", "fs"), "fast,fs"),
        (("--store", "fast", "--allow-failure"), "fast"),
        (("--all-stores",), "fast,fs"),
        (("--all-stores", "--disallow-failure", "--wait"), "fast,fs"),
        (("--all-stores", "--allow-failure"), "fast,fs"),
    ],
)
def test_from_the_web(cloud: Cloud, wish: tuple[str, ...], stores: str) -> None:
    url = cloud.web.file("disk.raw", CONTENT)
    identity = cloud.openstack("image create", "web", "-f", "json").json["id"]
    cloud.openstack("image import", "web", "--method", "web-download", "--uri", url, *wish)
    imported(cloud, identity, stores)


def test_what_cannot_be_imported(cloud: Cloud) -> None:
    identity = cloud.openstack("image create", "web", "-f", "json").json["id"]
    url, web = cloud.web.file("disk.raw", CONTENT), ("--method", "web-download")
    assert "'--uri' option is required" in cloud.openstack("image import", "web", *web, code=1).err
    assert "only supported when using" in cloud.openstack("image import", "web", "--uri", url, code=1).err
    assert "not a valid url" in cloud.openstack("image import", "web", *web, "--uri", "file:///x", code=1).err
    assert cloud.openstack("image import", NOBODY, *web, "--uri", url, code=1).err
    # the SDK does not look at the answer
    for forbidden in ("file://host/etc/passwd", "ftp://127.0.0.1/x", "http://host.invalid/x"):
        cloud.openstack("image import", "web", *web, "--uri", forbidden)
    cloud.openstack("image import", "web", *web, "--uri", url, "--store", "nope")
    assert (shown(cloud, identity)["status"], cloud.tasks(identity)) == ("queued", [])
    cloud.openstack("image import", "web", *web, "--uri", f"{url}.none")
    assert settled(cloud, identity)["status"] == "queued"
    assert "failure" in [task["Status"] for task in cloud.openstack("image task list", "-f", "json", user=ADMIN).json]


def test_copied_to_other_stores(cloud: Cloud, image: str) -> None:
    copy = ("--method", "copy-image")
    assert "options are required" in cloud.openstack("image import", image, *copy, user=ADMIN, code=1).err
    cloud.openstack("image import", image, *copy, "--store", "fast")  # the SDK does not look at the answer, a 403
    assert cloud.tasks(image) == []
    cloud.openstack("image import", image, *copy, "--store", "fast", user=ADMIN)
    imported(cloud, image, "fast,fs")
    cloud.openstack("image import", image, *copy, "--all-stores", "--wait", user=ADMIN)
    imported(cloud, image, "fast,fs")


def test_tasks_of_imports(cloud: Cloud) -> None:
    url = cloud.web.file("disk.raw", CONTENT)
    identity = cloud.openstack("image create", "web", "-f", "json").json["id"]
    cloud.openstack("image import", "web", "--method", "web-download", "--uri", url)
    imported(cloud, identity, "fs")
    assert "403" in cloud.openstack("image task list", code=1).err
    listed = cloud.openstack(
        "image task list", "--sort-key", "created_at", "--status", "success", "-f", "json", user=ADMIN
    )
    newest = listed.json[0]
    assert list(newest) == ["ID", "Type", "Status", "Owner"]
    assert (newest["Type"], newest["Owner"]) == ("api_image_import", cloud.project_id(DEMO))
    task = cloud.openstack("image task show", newest["ID"], "-f", "json", user=ADMIN).json
    facts = {"type": "api_image_import", "status": "success", "result": {"image_id": identity}}
    holds(task, facts)
    assert task["input"]["import_req"]["method"] == {"name": "web-download", "uri": url}
    assert cloud.openstack("image task show", NOBODY, user=ADMIN, code=1).err
    assert "403" in cloud.openstack("image task show", newest["ID"], code=1).err


def test_from_another_region(cloud: Cloud, image: str) -> None:
    """The region is this cloud's own: a service does not mind asking itself."""
    remote = ("--method", "glance-download", "--remote-region", "RegionOne", "--remote-image", image)
    identity = cloud.openstack("image create", "downloaded", "-f", "json").json["id"]
    assert "required" in cloud.openstack("image import", identity, *remote[:4], code=1).err
    cloud.openstack("image import", identity, *remote[:4], "--remote-image", NOBODY)
    assert settled(cloud, identity)["status"] == "queued"
    cloud.openstack("image import", "downloaded", *remote, "--remote-service-interface", "public", "--all-stores")
    imported(cloud, identity, "fast,fs")


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_sharing(cloud: Cloud, image: str) -> None:
    alt = cloud.project_id(ALT)
    assert cloud.openstack("image show", image, user=ALT, code=1).err.startswith("No Image found")
    added = cloud.openstack("image add project", image, alt).fields
    assert (added["image_id"], added["member_id"], added["status"]) == (image, alt, "pending")
    assert "409" in cloud.openstack("image add project", image, alt, code=1).err
    one = {"Image ID": image, "Member ID": alt, "Status": "pending"}
    assert cloud.openstack("image member list", image).rows == [one]
    assert cloud.openstack("image member get", image, alt).fields["status"] == "pending"
    assert shown(cloud, image, ALT)["name"] == "disk"
    assert names(cloud, "--shared", user=ALT) == []
    assert names(cloud, "--shared", "--member-status", "pending", user=ALT) == ["disk"]

    assert "403" in cloud.openstack("image set", image, "--project", alt, "--accept", code=1).err
    cloud.openstack("image set", image, "--accept", user=ALT)
    assert names(cloud, "--shared", user=ALT) == ["disk"]
    assert cloud.openstack("image member get", image, alt, user=ALT).fields["status"] == "accepted"
    cloud.openstack("image set", image, "--reject", user=ALT)
    assert names(cloud, user=ALT) == []
    assert names(cloud, "--shared", "--member-status", "rejected", user=ALT) == ["disk"]
    cloud.openstack("image set", image, "--pending", user=ALT)
    assert cloud.openstack("image member list", image, "-f", "json").json[0]["Status"] == "pending"
    assert "403" in cloud.openstack("image add project", image, cloud.project_id(ADMIN), user=ALT, code=1).err

    assert cloud.openstack("image remove project", image, alt).out == ""
    assert cloud.openstack("image member list", image, "-f", "json").json == []
    assert "404" in cloud.openstack("image member get", image, alt, code=1).err
    cloud.openstack("image remove project", image, alt)  # the SDK takes 404 for done
    assert cloud.openstack("image show", image, user=ALT, code=1).err.startswith("No Image found")


def test_only_shared_images_have_members(cloud: Cloud, image: str) -> None:
    cloud.openstack("image set", image, "--private")
    assert "403" in cloud.openstack("image add project", image, cloud.project_id(ALT), code=1).err
    assert "403" in cloud.openstack("image member list", image, code=1).err


# --- what the service can do ------------------------------------------------------------------------------------------


def test_stores_and_import_methods(cloud: Cloud) -> None:
    stores = cloud.openstack("image stores list", "-f", "json").json
    assert stores == [
        {"ID": "fs", "Description": None, "Default": True},
        {"ID": "fast", "Description": "the quick one", "Default": None},
        {"ID": "web", "Description": None, "Default": None},
    ]
    assert "403" in cloud.openstack("image stores list", "--detail", code=1).err
    details = cloud.openstack("image stores list", "--detail", "-f", "json", user=ADMIN).json
    assert [entry["ID"] for entry in details] == ["fs", "fast", "web"]
    assert details[0]["Properties"]["data_dir"].endswith("/images")
    methods = cloud.openstack("image import info", "-f", "json").json
    assert methods == {"import-methods": ["glance-direct", "web-download", "copy-image", "glance-download"]}


# --- the cache -------------------------------------------------------------------------------------------------------


def test_the_cache(cloud: Cloud, image: str) -> None:
    def listed(state: str = "cached") -> list[str]:
        found = cloud.openstack("cached image list", "-f", "json", user=ADMIN).json
        return [entry["ID"] for entry in found if entry["State"] == state]

    def wait_for(*images: str) -> None:
        deadline = time.monotonic() + 20
        while sorted(listed()) != sorted(images):
            assert time.monotonic() < deadline
            time.sleep(0.2)

    assert cloud.openstack("cached image queue", "disk", user=ADMIN).out == ""
    wait_for(image)
    assert cloud.openstack("cached image delete", image, user=ADMIN).out == ""
    wait_for()
    for target in ((), ("--cache",)):
        cloud.openstack("cached image queue", image, user=ADMIN)
        wait_for(image)
        assert cloud.openstack("cached image clear", "--queue", user=ADMIN).out == ""
        wait_for(image)
        assert cloud.openstack("cached image clear", *target, user=ADMIN).out == ""
        wait_for()
    assert "403" in cloud.openstack("cached image list", code=1).err
    assert cloud.openstack("cached image queue", NOBODY, user=ADMIN, code=1).err
    assert cloud.openstack("cached image delete", NOBODY, user=ADMIN, code=1).err


# --- metadata definitions ---------------------------------------------------------------------------------------------


def test_namespaces(cloud: Cloud) -> None:
    made = cloud.openstack(
        "image metadef namespace create", NAMESPACE, "--display-name", "Hardware", "--description", "Of tests",
        "--public", "--protected", "-f", "json", user=ADMIN,
    ).json  # fmt: skip
    facts = {
        "namespace": NAMESPACE,
        "display_name": "Hardware",
        "description": "Of tests",
        "visibility": "public",
        "protected": True,
        "owner": cloud.project_id(ADMIN),
    }
    holds(made, facts)
    holds(cloud.openstack("image metadef namespace show", NAMESPACE, "-f", "json").json, facts)
    again = cloud.openstack("image metadef namespace create", NAMESPACE, user=ADMIN, code=1)
    assert "409" in again.err
    assert "403" in cloud.openstack("image metadef namespace create", "Mine", code=1).err
    assert "1 of 1 namespace failed" in (
        cloud.openstack("image metadef namespace delete", NAMESPACE, user=ADMIN, code=1).err
    )

    cloud.openstack(
        "image metadef namespace set", NAMESPACE, "--display-name", "Other", "--description", "New", "--private",
        "--unprotected", "--tag", "one", "--tag", "two", user=ADMIN,
    )  # fmt: skip
    after = cloud.openstack("image metadef namespace show", NAMESPACE, "-f", "json", user=ADMIN).json
    assert (after["display_name"], after["description"], after["visibility"]) == ("Other", "New", "private")
    assert sorted(tag["name"] for tag in after["tags"]) == ["one", "two"]
    assert "404" in cloud.openstack("image metadef namespace show", NAMESPACE, code=1).err
    assert "Failed to set 1 of 1 tags" in (
        cloud.openstack("image metadef namespace set", NAMESPACE, "--tag", "one", user=ADMIN, code=1).err
    )
    cloud.openstack("image metadef namespace unset", NAMESPACE, "--tag", "one", user=ADMIN)
    after = cloud.openstack("image metadef namespace show", NAMESPACE, "-f", "json", user=ADMIN).json
    assert [tag["name"] for tag in after["tags"]] == ["two"]
    assert "Failed to unset 1 of 1 tags" in (
        cloud.openstack("image metadef namespace unset", NAMESPACE, "--tag", "nope", user=ADMIN, code=1).err
    )
    cloud.openstack("image metadef namespace unset", NAMESPACE, "--all-tags", user=ADMIN)
    after = cloud.openstack("image metadef namespace show", NAMESPACE, "-f", "json", user=ADMIN).json
    assert not after.get("tags")
    assert cloud.openstack("image metadef namespace delete", NAMESPACE, user=ADMIN).out == ""
    assert "404" in cloud.openstack("image metadef namespace show", NAMESPACE, user=ADMIN, code=1).err


def test_lists_of_namespaces(cloud: Cloud, namespace: str) -> None:
    cloud.openstack("image metadef namespace create", "Test::Private", "--private", user=ADMIN)

    def found(*filters: str, user: str = ADMIN) -> list[str]:
        listed = cloud.openstack("image metadef namespace list", *filters, "-f", "json", user=user).json
        return sorted(entry["namespace"] for entry in listed)

    assert found() == [namespace, "Test::Private"]
    assert found(user=DEMO) == [namespace]
    assert found("--visibility", "private") == ["Test::Private"]
    cloud.openstack("image metadef resource type association create", namespace, "Test::Thing", user=ADMIN)
    assert found("--resource-types", "Test::Thing") == [namespace]
    assert found("--resource-types", "Test::Nothing") == []
    cloud.openstack("image metadef namespace delete", "Test::Private", user=ADMIN)


def test_properties_of_a_namespace(cloud: Cloud, namespace: str) -> None:
    schema = json.dumps({"enum": ["ide", "scsi"], "default": "ide", "operators": ["<or>"], "description": "Which bus"})
    made = cloud.openstack(
        "image metadef property create", namespace, "--name", "bus", "--title", "Bus", "--type", "string",
        "--schema", schema, "-f", "json", user=ADMIN,
    ).json  # fmt: skip
    facts = {
        "name": "bus",
        "title": "Bus",
        "type": "string",
        "enum": ["ide", "scsi"],
        "default": "ide",
        "operators": ["<or>"],
        "description": "Which bus",
    }
    holds(made, facts)
    holds(cloud.openstack("image metadef property show", namespace, "bus", "-f", "json").json, facts)
    one = {"name": "bus", "title": "Bus", "type": "string"}
    assert cloud.openstack("image metadef property list", namespace, "-f", "json").json == [one]
    twice = ["--name", "bus", "--title", "Bus", "--type", "string", "--schema", "{}"]
    assert "409" in cloud.openstack("image metadef property create", namespace, *twice, user=ADMIN, code=1).err
    assert "403" in cloud.openstack("image metadef property create", namespace, *twice, code=1).err
    wrong = ["--name", "x", "--title", "x", "--type", "colour", "--schema", "{}"]
    assert "400" in cloud.openstack("image metadef property create", namespace, *wrong, user=ADMIN, code=1).err

    cloud.openstack(
        "image metadef property set", namespace, "bus", "--name", "line", "--title", "Line", "--type", "string",
        "--schema", '{"enum": ["usb"], "default": "usb"}', user=ADMIN,
    )  # fmt: skip
    assert "404" in cloud.openstack("image metadef property show", namespace, "bus", code=1).err
    after = cloud.openstack("image metadef property show", namespace, "line", "-f", "json").json
    holds(after, {"name": "line", "title": "Line", "enum": ["usb"], "default": "usb"})

    more = ["--name", "count", "--title", "Count", "--type", "integer", "--schema", '{"minimum": 1, "maximum": 4}']
    cloud.openstack("image metadef property create", namespace, *more, user=ADMIN)
    count = cloud.openstack("image metadef property show", namespace, "count", "-f", "json").json
    assert (count["minimum"], count["maximum"]) == (1, 4)
    cloud.openstack("image metadef property delete", namespace, "line", user=ADMIN)
    gone = cloud.openstack("image metadef property delete", namespace, "line", user=ADMIN, code=1)
    assert "Failed to delete property with name or ID 'line'" in gone.err
    cloud.openstack("image metadef property delete", namespace, user=ADMIN)
    assert cloud.openstack("image metadef property list", namespace, "-f", "json").json == []


def test_objects_of_a_namespace(cloud: Cloud, namespace: str) -> None:
    made = cloud.openstack("image metadef object create", "disk", "--namespace", namespace, user=ADMIN).fields
    assert made["name"] == "disk"
    assert "409" in (
        cloud.openstack("image metadef object create", "disk", "--namespace", namespace, user=ADMIN, code=1).err
    )
    assert "403" in cloud.openstack("image metadef object create", "x", "--namespace", namespace, code=1).err
    cloud.openstack("image metadef object create", "second", "--namespace", namespace, user=ADMIN)
    listed = cloud.openstack("image metadef object list", namespace, "-f", "json").json
    assert sorted(entry["name"] for entry in listed) == ["disk", "second"]
    cloud.openstack("image metadef object update", namespace, "second", "--name", "third", user=ADMIN)
    assert cloud.openstack("image metadef object show", namespace, "third").fields["name"] == "third"
    assert "404" in cloud.openstack("image metadef object show", namespace, "second", code=1).err

    # only the glance client and the API can give an object properties
    body = {
        "name": "full",
        "required": ["size"],
        "properties": {"size": {"title": "Size", "type": "integer", "minimum": 1}},
    }
    cloud.glance("md-object-create", namespace, "--name", "full", "--schema", json.dumps(body), user=ADMIN)
    full = cloud.openstack("image metadef object show", namespace, "full", "-f", "json").json
    assert full["required"] == ["size"]
    assert full["properties"]["size"]["minimum"] == 1
    size = cloud.openstack("image metadef object property show", namespace, "full", "size", "-f", "json").json
    holds(size, {"name": "size", "title": "Size", "type": "integer", "minimum": 1})
    missing = cloud.openstack("image metadef object property show", namespace, "full", "nope", code=1)
    assert "Property nope not found in object full" in missing.err

    cloud.openstack("image metadef object delete", namespace, "full", user=ADMIN)
    gone = cloud.openstack("image metadef object delete", namespace, "full", user=ADMIN, code=1)
    assert "Failed to delete object with name or ID 'full'" in gone.err
    cloud.openstack("image metadef object delete", namespace, user=ADMIN)
    assert cloud.openstack("image metadef object list", namespace, "-f", "json").json == []


def test_resource_types_of_a_namespace(cloud: Cloud, namespace: str) -> None:
    made = cloud.openstack(
        "image metadef resource type association create", namespace, "Test::Image", "--properties-target", "image",
        user=ADMIN,
    ).fields  # fmt: skip
    assert (made["name"], made["properties_target"]) == ("Test::Image", "image")
    twice = cloud.openstack(
        "image metadef resource type association create", namespace, "Test::Image", user=ADMIN, code=1
    )
    assert "409" in twice.err
    assert "403" in cloud.openstack("image metadef resource type association create", namespace, "x", code=1).err
    listed = cloud.openstack("image metadef resource type association list", namespace, "-f", "json").json
    assert listed == [{"Name": "Test::Image"}]
    types = cloud.openstack("image metadef resource type list", "-f", "json").json
    assert {"Name": "Test::Image"} in types
    cloud.openstack("image metadef namespace set", namespace, "--protected", user=ADMIN)
    refused = cloud.openstack(
        "image metadef resource type association delete", namespace, "Test::Image", user=ADMIN, code=1
    )
    assert "Failed to delete resource type with name or ID 'Test::Image'" in refused.err
    cloud.openstack("image metadef resource type association delete", namespace, "Test::Image", "--force", user=ADMIN)
    assert (
        cloud.openstack("image metadef resource type association list", namespace, "-f", "json", user=ADMIN).json == []
    )
    # `--force` writes the namespace anew, and so makes it private
    assert "404" in cloud.openstack("image metadef namespace show", namespace, code=1).err


# --- signing in -------------------------------------------------------------------------------------------------------


def test_with_a_password_and_without_rights(cloud: Cloud, clients: Clients, image: str) -> None:
    listed = json.loads(clients.openstack("image", "list", "-f", "json", env=cloud.rc(DEMO)))
    assert [entry["ID"] for entry in listed] == [image]
    saved = clients.run("openstack", "image", "save", image, env=cloud.rc(DEMO))
    assert saved == CONTENT
