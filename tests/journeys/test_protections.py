"""Property protections and the operator's own image schema, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .client import Api, add, remove, replace
from .conftest import USERS, run, signed_in, with_users
from .service import MULTI_STORE, Service

PROTECTIONS = """
[^x_open]
create = @
read = @
update = @
delete = @
[^x_secret]
create = admin
read = admin
update = admin
delete = admin
[^x_once]
create = member
read = @
update = admin
delete = admin
[.*]
create = @
read = @
update = @
delete = @
"""

CUSTOM: dict[str, Any] = {
    "properties": {
        "os_distro": {"type": "string", "enum": ["alpine", "debian"]},
        "kernel_id": {"type": ["null", "string"]},
        "cost_centre": {"type": "string", "description": "Who pays"},
    },
    "required": ["cost_centre"],
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("protected")
    (home / "protections.conf").write_text(PROTECTIONS)
    (home / "schema-image.json").write_text(json.dumps(CUSTOM))
    made = Service(home, MULTI_STORE, with_users(home, USERS))
    made.configure({"DEFAULT": {"property_protection_file": "protections.conf", "workers": 1}})
    yield from run(made, tables)


@pytest.fixture(scope="module")
def guest(service: Service) -> Iterator[Callable[[str], Api]]:
    yield from signed_in(service, USERS)


Guest = Callable[[str], Api]


def test_what_may_not_be_created(guest: Guest) -> None:
    assert guest("alice").raw_create(cost_centre="1", x_secret="1").status_code == 403
    assert guest("admin").raw_create(cost_centre="1", x_secret="1").status_code == 201
    assert guest("alice").create(cost_centre="1", x_once="1")["x_once"] == "1"


def test_what_may_not_be_read_is_not_there_and_survives_a_change(guest: Guest) -> None:
    alice, admin = guest("alice"), guest("admin")
    image = alice.create(cost_centre="1", x_open="1")["id"]
    admin.patch(image, add("x_secret", "hush"))
    assert "x_secret" not in alice.show(image)
    assert all("x_secret" not in found for found in alice.list(x_open="1"))
    assert alice.raw_patch(image, [replace("x_secret", "mine")]).status_code == 409
    assert alice.raw_patch(image, [remove("x_secret")]).status_code == 409
    assert alice.raw_patch(image, [add("x_secret", "mine")]).status_code == 403
    assert "x_secret" not in alice.patch(image, replace("x_open", "2"))
    assert admin.show(image)["x_secret"] == "hush"


@pytest.mark.better_than_glance
def test_lists_do_not_tell_what_may_not_be_read(guest: Guest) -> None:
    alice, admin = guest("alice"), guest("admin")
    image = alice.create(cost_centre="1", x_open="1")["id"]
    admin.patch(image, add("x_secret", "hush"))
    assert [found["id"] for found in admin.list(x_secret="hush", id=image)] == [image]
    assert alice.list(x_secret="hush") == []
    assert alice.list(x_secret="hush", id=image) == []
    assert [found["id"] for found in alice.list(x_open="1", id=image)] == [image]


def test_what_may_not_be_changed(guest: Guest) -> None:
    alice = guest("alice")
    image = alice.create(cost_centre="1", x_once="1")["id"]
    assert alice.raw_patch(image, [replace("x_once", "2")]).status_code == 403
    assert alice.raw_patch(image, [remove("x_once")]).status_code == 403
    assert alice.raw_patch(image, [replace("name", "n"), add("x_once", "2")]).status_code == 403
    assert alice.show(image)["name"] is None
    assert guest("admin").patch(image, replace("x_once", "2"))["x_once"] == "2"


def test_the_operators_schema_is_published_and_holds(guest: Guest) -> None:
    alice = guest("alice")
    schema = alice.get("/v2/schemas/image").json()
    assert schema["required"] == ["cost_centre"]
    assert schema["properties"]["os_distro"] == {**CUSTOM["properties"]["os_distro"], "is_base": False}
    assert alice.get("/v2/schemas/images").json()["properties"]["images"]["items"] == schema
    assert alice.raw_create(name="n").status_code == 400
    assert alice.raw_create(cost_centre="1", os_distro="beos").status_code == 400
    image = alice.create(cost_centre="1", os_distro="alpine", kernel_id=None)
    assert image["kernel_id"] == ""
    assert alice.raw_patch(image["id"], [replace("os_distro", "beos")]).status_code == 400
    assert alice.patch(image["id"], replace("os_distro", "debian"))["os_distro"] == "debian"
