"""Five install guides, walked step by step: from the empty database to an image that somebody else can download.

What the guides print is held against what is printed here, so that a reader finds the same columns and fields.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.black_box.conftest import DISK_SIZE
from tests.black_box.controller import Controller
from tests.black_box.tables import fields, rows


def grants(password: str) -> str:
    """The statements with which every guide makes the database."""
    return (
        "CREATE DATABASE glance;\n"
        f"GRANT ALL PRIVILEGES ON glance.* TO 'glance'@'localhost' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL PRIVILEGES ON glance.* TO 'glance'@'%' IDENTIFIED BY '{password}';\n"
    )


def fetch(node: Controller, disk_image: Path, name: str) -> Path:
    """In the place of wget: CirrOS's image under the name that it has in the guide."""
    path = node.home / name
    path.write_bytes(disk_image.read_bytes())
    return path


def sign_in(rc_file: str, command: str) -> str:
    """The script of a command of somebody who has read the file with his credentials."""
    return f". {rc_file}\n{command}"


def image_is_right(node: Controller, rc_file: str, identity: str, name: str, file: Path) -> None:
    """The image is what was uploaded: as either client shows it, as either client downloads it, and on the disk."""
    content = file.read_bytes()
    facts = {
        "id": identity,
        "name": name,
        "status": "active",
        "visibility": "public",
        "disk_format": "qcow2",
        "container_format": "bare",
        "size": str(len(content)),
        "checksum": hashlib.md5(content).hexdigest(),
        "min_disk": "0",
        "min_ram": "0",
    }
    for show in ("openstack image show", "glance image-show"):
        shown = fields(node.shell(sign_in(rc_file, f"{show} {identity}")))
        assert facts.items() <= shown.items()
    for save in ("openstack image save", "glance image-download"):
        node.shell(sign_in(rc_file, f"{save} --file downloaded.img {identity}"))
        downloaded = node.home / "downloaded.img"
        assert downloaded.read_bytes() == content
        info = json.loads(node.shell("qemu-img info --output json downloaded.img"))
        assert (info["format"], info["virtual-size"]) == ("qcow2", DISK_SIZE)
        downloaded.unlink()
    assert [path.name for path in node.images.iterdir()] == [identity]


def the_one_image(table: str, name: str) -> str:
    """The id in a list of one active image, which has the columns that the guides show."""
    (row,) = rows(table)
    assert list(row) == ["ID", "Name", "Status"]
    assert (row["Name"], row["Status"]) == (name, "active")
    return row["ID"]


def test_yoga_with_two_stores(controller: Controller, disk_image: Path) -> None:
    """Yoga on Ubuntu: `stores` and `default_store`, the service's commands, `glance image-create`."""
    node, admin = controller, "adminrc.sh"
    node.prepare(root_password="openstack", rc_file=admin)
    node.shell("mysql -u root -popenstack", typed=grants("glancedbpass"))
    node.create_user(admin, "glancepass")
    node.shell(sign_in(admin, "openstack role add --project service --user glance admin"))
    node.shell(sign_in(admin, 'openstack service create --name glance --description "OpenStack Image" image'))
    node.create_endpoints(admin, "http://192.168.56.101:9292")
    node.write("glance-api.conf", source="yoga-glance-api.conf")
    node.shell('su -s /bin/sh -c "glance-manage db_sync" glance')
    node.service.start()

    file = fetch(node, disk_image, "cirros-0.4.0-x86_64-disk.img")
    create = """glance image-create --name "cirros" \\
--file cirros-0.4.0-x86_64-disk.img \\
--disk-format qcow2 --container-format bare \\
--visibility=public"""
    created = fields(node.shell(sign_in(admin, create)))
    assert created["status"] == "active"
    identity = the_one_image(node.shell(sign_in(admin, "openstack image list")), "cirros")
    assert identity == created["id"]
    image_is_right(node, admin, identity, "cirros", file)


def test_named_store_and_limits(controller: Controller, disk_image: Path) -> None:
    """A recent guide: `enabled_backends`, a message broker that is not there, `[oslo_limit]` with an endpoint's id."""
    node, admin = controller, "admin-openrc"
    node.prepare(root_password="", rc_file=admin)
    node.shell("mysql", typed=grants("GLANCE_DBPASS"))
    node.create_user(admin, "GLANCE_PASS")
    node.shell(sign_in(admin, "openstack role add --project service --user glance admin"))
    node.shell(sign_in(admin, 'openstack service create --name glance --description "OpenStack Image" image'))
    node.create_endpoints(admin, "http://controller:9292")
    endpoints = rows(node.shell(sign_in(admin, "openstack endpoint list --service image --interface public")))
    changes = {"340be3625e9b4239a6415d034e98aace": endpoints[0]["ID"]}
    node.write("glance-api.conf", changes, source="limits-glance-api.conf")
    node.shell('sudo -s /bin/sh -c "glance-manage db_sync" glance')
    node.service.start()

    file = fetch(node, disk_image, "cirros-0.4.0-x86_64-disk.img")
    create = """glance image-create --name "cirros" \\
  --file cirros-0.4.0-x86_64-disk.img \\
  --disk-format qcow2 --container-format bare \\
  --visibility=public"""
    node.shell(sign_in(admin, create))
    # Today's client lists no status unless it is asked to; the guide's own output is what `openstack` prints.
    (row,) = rows(node.shell(sign_in(admin, "glance image-list")))
    identity = the_one_image(node.shell(sign_in(admin, "openstack image list")), "cirros")
    assert row == {"ID": identity, "Name": "cirros"}
    image_is_right(node, admin, identity, "cirros", file)


# The fields of an image in the guide's own output.
OCATA_FIELDS = {
    *("checksum", "container_format", "created_at", "disk_format", "file", "id", "min_disk", "min_ram", "name"),
    *("owner", "protected", "schema", "size", "status", "tags", "updated_at", "virtual_size", "visibility"),
}


def test_ocata_with_registry(controller: Controller, disk_image: Path) -> None:
    """Ocata on Ubuntu: names of Keystone's options from then, port 35357, a registry, `openstack image create`."""
    node, admin = controller, "admin-openrc"
    node.prepare(root_password="secret", rc_file=admin)
    node.shell("mysql -u root -psecret", typed=grants("GLANCE_DBPASS"))
    create_user = "openstack user create --domain default --password GLANCE_PASS --email glance@example.com glance"
    node.shell(sign_in(admin, create_user))
    node.shell(sign_in(admin, "openstack role add --project service --user glance admin"))
    node.shell(sign_in(admin, 'openstack service create --name glance  --description "OpenStack Image service" image'))
    node.create_endpoints(admin, "http://10.0.0.11:9292")
    node.write("glance-api.conf", source="ocata-glance-api.conf")
    node.write("glance-registry.conf", source="ocata-glance-registry.conf")
    node.shell("sudo glance-manage db_sync")
    assert len(node.shell("glance-registry").splitlines()) == 1
    node.service.start()
    node.shell("sudo rm -f /var/lib/glance/glance.sqlite")

    file = fetch(node, disk_image, "cirros-0.3.5-x86_64-disk.img")
    create = """openstack image create "cirros-0.3.5-x86_64" \\
--file cirros-0.3.5-x86_64-disk.img \\
--disk-format qcow2 --container-format bare \\
--public"""
    created = fields(node.shell(sign_in(admin, create)))
    shown = fields(node.shell(sign_in(admin, f"openstack image show {created['id']}")))
    assert set(shown) >= OCATA_FIELDS
    assert (shown["file"], shown["schema"]) == (f"/v2/images/{shown['id']}/file", "/v2/schemas/image")
    assert (shown["protected"], shown["tags"]) == ("False", "")
    identity = the_one_image(node.shell(sign_in(admin, "openstack image list")), "cirros-0.3.5-x86_64")
    assert identity == created["id"]
    image_is_right(node, admin, identity, "cirros-0.3.5-x86_64", file)


def test_commands_of_a_day(controller: Controller, disk_image: Path) -> None:
    """A day's notes of commands, in both spellings; Rocky's set-up, which the notes refer to, is that of Ocata."""
    node, admin = controller, "admin-openrc"
    node.prepare(root_password="secret", rc_file=admin)
    node.shell("mysql -u root -psecret", typed=grants("GLANCE_DBPASS"))
    node.shell(sign_in(admin, "openstack user create --domain default --password GLANCE_PASS glance"))
    node.shell(sign_in(admin, "openstack role add --project service --user glance admin"))
    node.shell(sign_in(admin, "openstack service create --name glance image"))
    node.create_endpoints(admin, "http://controller:9292")
    node.write("glance-api.conf", source="ocata-glance-api.conf")
    node.shell('su -s /bin/sh -c "glance-manage db_sync" glance')
    node.service.start()

    assert "ID" in node.shell(sign_in(admin, "glance image-list"))
    file = fetch(node, disk_image, "disk.img")
    assert "file format: qcow2" in node.shell("qemu-img info disk.img")
    options = "--file disk.img --disk-format qcow2 --container-format bare"
    private = fields(node.shell(sign_in(admin, f'openstack image create "private" {options}')))
    node.shell(sign_in(admin, f"openstack image delete {private['id']}"))
    public = fields(node.shell(sign_in(admin, f'openstack image create "public" {options} --public')))
    (row,) = rows(node.shell(sign_in(admin, "glance image-list")))
    assert row == {"ID": public["id"], "Name": "public"}
    identity = row["ID"]
    image_is_right(node, admin, identity, "public", file)
    node.shell("qemu-img convert -O raw disk.img disk.raw")
    raw = "--file disk.raw --disk-format raw --container-format bare"
    converted = fields(node.shell(sign_in(admin, f'openstack image create "converted" {raw}')))
    shown = fields(node.shell(sign_in(admin, f"openstack image show {converted['id']}")))
    assert (shown["status"], shown["size"], shown["virtual_size"]) == ("active", str(DISK_SIZE), str(DISK_SIZE))


def test_liberty_with_old_names(controller: Controller, disk_image: Path) -> None:
    """Liberty on CentOS: `mysql://`, `auth_plugin`, no memcached, sections twice, a `$` in the password."""
    node, admin = controller, "admin-openrc.sh"
    node.prepare(root_password="Password123$", rc_file=admin)
    node.shell("mysql -u root -p'Password123$'", typed=grants("Password123$"))
    node.create_user(admin, "Password123$")
    node.shell(sign_in(admin, "openstack role add --project service --user glance admin"))
    node.shell(sign_in(admin, 'openstack service create --name glance --description "OpenStack Image service" image'))
    node.create_endpoints(admin, "http://controller01:9292")
    node.write("glance-api.conf", source="liberty-glance-api.conf")
    node.write("glance-registry.conf", source="liberty-glance-registry.conf")
    node.shell('su -s /bin/sh -c "glance-manage db_sync" glance')
    node.service.start()
    assert len(node.shell("glance-registry").splitlines()) == 1

    mysql = "mysql -u glance -h controller01 -p'Password123$' --table"
    assert [row["Database"] for row in rows(node.shell(mysql, typed="SHOW DATABASES;"))] == [
        "glance",
        "information_schema",
    ]
    tables = {row["Tables_in_glance"] for row in rows(node.shell(mysql, typed="USE glance; SHOW TABLES;"))}
    assert {"images", "image_properties", "image_locations", "alembic_version"} <= tables

    node.shell(f'echo "export OS_IMAGE_API_VERSION=2" | tee -a ~/{admin}')
    file = fetch(node, disk_image, "cirros-0.3.4-x86_64-disk.img")
    create = (
        'glance image-create --name "cirros" --file cirros-0.3.4-x86_64-disk.img --disk-format qcow2'
        " --container-format bare --visibility public --progress"
    )
    shown = node.dialogue(sign_in(admin, create))  # at a terminal, or there is no progress to be seen
    assert "=>] 100%" in shown
    created = fields(shown)
    assert created["status"] == "active"
    assert created["size"] == str(file.stat().st_size)
    image_is_right(node, admin, created["id"], "cirros", file)
