"""A million images in MariaDB as a cloud has them, made by the server itself (SEQUENCE engine) in a few minutes.

2,000 projects of very different size, names that are unique, shared by a few or by thousands, five properties, one or
two tags, a location each; a third of the shared ones have members; one row in eleven was deleted. All of it follows
from the number of a row, so that two runs measure the same.
"""

from __future__ import annotations

import hashlib
import time

import pymysql

IMAGES = 1_000_000
PROJECTS = 2_000


def project(number: int) -> str:
    """The id of a project; number 0 has 8 % of all images, the last ones about 170 each."""
    return hashlib.md5(f"project{number}".encode()).hexdigest()


def _random(salt: str) -> str:
    return f"(CONV(LEFT(MD5(CONCAT('{salt}', seq)), 8), 16, 10) / 4294967296)"


def _project(salt: str) -> str:
    return f"MD5(CONCAT('project', FLOOR({PROJECTS} * POW({_random(salt)}, 3))))"


_HASH = "MD5(CONCAT('image', seq))"
_ID = "CONCAT_WS('-', " + ", ".join(f"SUBSTR({_HASH}, {at}, {size})" for at, size in
                                    ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))) + ")"  # fmt: skip
_WHEN = "('2023-01-01' + INTERVAL seq * 90 SECOND)"
_GONE = "(seq % 11 = 5)"
_QUEUED = f"({_random('status')} < 0.02)"
_ENDS = f"{_WHEN}, {_WHEN}, {_GONE}, IF({_GONE}, {_WHEN} + INTERVAL 1 DAY, NULL)"
_END_COLUMNS = "created_at, updated_at, deleted, deleted_at"
_SHARED = f"{_random('visibility')} BETWEEN 0.5 AND 0.9"

_COLUMNS = {
    "id": _ID,
    "name": f"CASE WHEN {_random('kind')} < 0.01 THEN NULL"
    f" WHEN {_random('kind')} < 0.2 THEN CONCAT('base ', FLOOR({_random('name')} * 20))"
    f" WHEN {_random('kind')} < 0.5 THEN CONCAT('snapshot ', FLOOR({_random('name')} * 100000))"
    " ELSE CONCAT('image ', seq) END",
    "size": f"IF({_QUEUED}, NULL, FLOOR({_random('size')} * 17179869184))",
    "status": f"CASE WHEN {_QUEUED} THEN 'queued' WHEN {_random('status')} < 0.03 THEN 'deactivated' ELSE 'active' END",
    "disk_format": f"IF({_random('format')} < 0.7, 'qcow2', 'raw')",
    "container_format": "'bare'",
    "checksum": f"IF({_QUEUED}, NULL, MD5(CONCAT('checksum', seq)))",
    "owner": _project("owner"),
    "min_disk": "0",
    "min_ram": "0",
    "protected": "0",
    "visibility": f"CASE WHEN {_random('visibility')} < 0.5 THEN 'private' WHEN {_random('visibility')} < 0.9"
    f" THEN 'shared' WHEN {_random('visibility')} < 0.95 THEN 'public' ELSE 'community' END",
    "os_hidden": f"{_random('hidden')} < 0.02",
    "os_hash_algo": f"IF({_QUEUED}, NULL, 'sha512')",
    "os_hash_value": f"IF({_QUEUED}, NULL, SHA2(seq, 512))",
}
_PROPERTIES = {
    "os_distro": "ELT(1 + FLOOR(10 * " + _random("distro") + "), 'ubuntu', 'ubuntu', 'ubuntu', 'debian', 'centos',"
    " 'rocky', 'windows', 'fedora', 'cirros', 'alpine')",
    "architecture": f"IF({_random('architecture')} < 0.95, 'x86_64', 'aarch64')",
    "hw_disk_bus": f"IF({_random('bus')} < 0.9, 'virtio', 'scsi')",
    "build_id": "CONCAT('build-', seq DIV 20)",
    "instance_uuid": "MD5(CONCAT('instance', seq))",
}


def _statements() -> list[str]:
    rows = f"FROM seq_1_to_{IMAGES + IMAGES // 10}"
    made = [
        f"INSERT INTO images ({', '.join(_COLUMNS)}, {_END_COLUMNS})"
        f" SELECT {', '.join(_COLUMNS.values())}, {_ENDS} {rows} ORDER BY 1"
    ]
    for name, value in _PROPERTIES.items():
        made.append(
            f"INSERT INTO image_properties (image_id, name, value, {_END_COLUMNS})"
            f" SELECT {_ID}, '{name}', {value}, {_ENDS} {rows} ORDER BY 1"
        )
    for value, chosen in (
        (f"CONCAT('tier-', FLOOR(10 * {_random('tier')}))", "1"),
        (f"CONCAT('team-', FLOOR(500 * {_random('team')}))", "seq % 2 = 0"),
    ):
        made.append(
            f"INSERT INTO image_tags (image_id, value, {_END_COLUMNS})"
            f" SELECT {_ID}, {value}, {_ENDS} {rows} WHERE {chosen} ORDER BY 1"
        )
    made.append(
        f"INSERT INTO image_locations (image_id, value, meta_data, status, {_END_COLUMNS})"
        f" SELECT {_ID}, CONCAT('file:///var/lib/glance/images/', {_ID}), '{{\"store\": \"fs\"}}',"
        f" IF({_GONE}, 'deleted', 'active'), {_ENDS} {rows} WHERE NOT {_QUEUED} ORDER BY 1"
    )
    for salt in ("first", "second"):
        status = f"CASE WHEN {_random(salt + ' status')} < 0.6 THEN 'accepted' ELSE 'pending' END"
        made.append(
            f"INSERT IGNORE INTO image_members (image_id, member, can_share, status, {_END_COLUMNS})"
            f" SELECT {_ID}, {_project(salt)}, 0, {status}, {_ENDS} {rows}"
            f" WHERE {_SHARED} AND {_random(salt + ' chosen')} < 0.17 ORDER BY 1"
        )
    return made


def load(connection: pymysql.Connection[pymysql.cursors.Cursor]) -> float:
    """Fill tables that are empty; the seconds it took."""
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION unique_checks = 0, foreign_key_checks = 0")
        for statement in _statements():
            cursor.execute(statement)
            print(f"  {statement.split()[2 if 'IGNORE' not in statement else 3]}: {cursor.rowcount:,} rows", flush=True)
        cursor.execute("ANALYZE TABLE images, image_properties, image_tags, image_locations, image_members")
    return time.monotonic() - began
