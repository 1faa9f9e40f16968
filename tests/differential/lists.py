"""GET /v2/images: filters, order, pages, on a library of images that both sides have alike."""

from __future__ import annotations

from collections.abc import Iterator

from tests.differential.steps import Scenario, Settle, Step, create, fixed, get, patch, post, put, ready, show, upload

USERS = ("member", "reader", "stranger", "here", "there", "admin", "service", "nobody")
CONTENT = b"content"  # the sums of its bytes are used in filters
MD5 = "9a0364b9e99bb480dd25e1f0284c8555"


def scenarios() -> Iterator[Scenario]:
    """All of them, each on the same library, so that no list is too long to be looked at."""
    yield Scenario(
        "lists by user", [*_library(), *(get(f"/v2/images{query}", user) for user in USERS for query in EVERYONE)]
    )
    yield Scenario("filters", [*_library(), *(get(f"/v2/images?{query}") for query in FILTERS)])
    yield Scenario("filters, admin", [*_library(), *(get(f"/v2/images?{query}", "admin") for query in FILTERS[::7])])
    yield Scenario("names in filters", [*_names(), *(get(f"/v2/images?sort=id:asc&name={value}") for value in IN)])
    yield Scenario("order", [*_library(), *(get(f"/v2/images?{query}", "admin") for query in ORDERS)])
    yield Scenario("limits and markers", [*_library(), *(get(f"/v2/images?{query}") for query in PAGES)])
    yield Scenario("walks", [*_library(), *_walks()])
    yield Scenario(
        "an empty library",
        [get(f"/v2/images?{query}") for query in (*FILTERS[::17], *ORDERS[::9], "limit=1", "limit=0")],
    )


def _names() -> Iterator[Step]:
    for number, name in enumerate(("alpha", "beta", "", None, " alpha", "a,b", "c:d"), 1):
        yield create(id=fixed(number), name=name)


def _library() -> Iterator[Step | Settle]:
    image = iter(range(1, 100))
    yield ready(id=fixed(next(image)), name="alpha", os_distro="debian", tags=["a", "b"], min_ram=1, min_disk=2)
    yield upload(fixed(1), data=CONTENT)
    yield create(
        id=fixed(next(image)), name="beta", os_distro="ubuntu", tags=["a"], disk_format="qcow2", container_format="bare"
    )
    yield create(id=fixed(next(image)), name="gamma", os_distro="", tags=["A", " c "])
    yield create(id=fixed(next(image)), name="n" * 255)
    yield create(id=fixed(next(image)), name="a:b", architecture="x,y", protected=True)
    yield create(id=fixed(next(image)), name='say "x", y', visibility="private", os_version="in:1")
    yield create(id=fixed(next(image)), name="Alpha", visibility="community", tags=["ü/x"], min_ram=2**31 - 1)
    yield create(id=fixed(next(image)), name="映像 Füße", os_hidden=True, os_distro="debian", tags=["a"])
    yield ready(
        "admin", id=fixed(next(image)), name="public", visibility="public", os_distro="debian", tags=["a", "b", "c"]
    )
    yield upload(fixed(9), "admin", CONTENT * 3)
    yield create("admin", id=fixed(next(image)), name="hidden public", visibility="public", os_hidden=True)
    yield create("admin", id=fixed(next(image)), name="nobody's", owner=None, visibility="private")
    yield ready("stranger", id=fixed(next(image)), name="alpha", visibility="shared", os_distro="debian", tags=["a"])
    yield upload(fixed(12), "stranger", b"x")
    yield create("stranger", id=fixed(next(image)), name="community", visibility="community", tags=["a"])
    yield create("stranger", id=fixed(next(image)), name="secret", visibility="private", tags=["a"])
    for status, number in (("pending", next(image)), ("accepted", next(image)), ("rejected", next(image))):
        yield create("stranger", id=fixed(number), name=f"shared, {status}", tags=["a", "m"], size_hint=status)
        yield post(f"/v2/images/{fixed(number)}/members", "stranger", json={"member": "${demo}"})
        yield put(f"/v2/images/{fixed(number)}/members/${{demo}}", json={"status": status})
    yield create(id=fixed(next(image)), name="shared away")
    yield post(f"/v2/images/{fixed(18)}/members", json={"member": "${alt}"})
    yield ready("here", id=fixed(next(image)), name="deactivated")
    yield upload(fixed(19), "here", CONTENT)
    yield post(f"/v2/images/{fixed(19)}/actions/deactivate", "here")
    yield Settle()
    yield show(fixed(19))
    yield get("/v2/images?sort=id:asc&limit=100&visibility=all&member_status=all", "admin")


EVERYONE = (
    "", "?visibility=all", "?visibility=public", "?visibility=private", "?visibility=shared", "?visibility=community",
    "?visibility=x", "?visibility=",
    "?visibility=PUBLIC", "?member_status=all", "?member_status=pending", "?member_status=rejected",
    "?member_status=accepted", "?member_status=x",
    "?member_status=", "?visibility=shared&member_status=all", "?visibility=shared&member_status=pending",
    "?visibility=all&member_status=all",
    "?os_hidden=true", "?os_hidden=false", "?os_hidden=True", "?os_hidden=x", "?os_hidden=", "?os_hidden=1",
    "?visibility=all&os_hidden=true",
    "?owner=${demo}", "?owner=${alt}", "?owner=${alt}&visibility=all", "?owner=", "?owner=x", "?tag=a",
    "?tag=a&visibility=all",
    "?visibility=private&member_status=all", "?visibility=public&visibility=private", "?is_public=true",
    "?os_hidden=true&visibility=community",
)  # fmt: skip

FILTERS = (
    *(f"name={value}" for value in (
        "alpha", "Alpha", "ALPHA", "", "a:b", "eq:a:b", "eq:alpha", "in:alpha,beta", "in:alpha", "in:", "in:,",
        "in:alpha,", "in:,alpha", "in:%22a:b%22,beta",
        "in:%22alpha", "in:alpha%22", "in:%22say%20%5C%22x%5C%22,%20y%22,beta", "in:%22alpha%22x", "in:%22%22",
        "in:a%20,beta", "in:%20alpha%20", "neq:alpha", "gt:alpha",
        "like:alpha", "eq:", "x:y", ":alpha", "%E6%98%A0%E5%83%8F%20F%C3%BC%C3%9Fe", "alph%25", "alph_", "al%27pha",
        "%F0%9F%92%BF", "%00", "%FF", "alpha&name=beta",
        "in:alpha&name=in:beta", "in:" + ",".join(f"n{number}" for number in range(100)), "n" * 300, "alpha%20",
        "+alpha", "null", "None",
    )),
    *(f"id={value}" for value in (fixed(1), f"eq:{fixed(1)}", f"in:{fixed(1)},{fixed(2)}", f"in:{fixed(1)},x", "x",
    "", "in:", f"gt:{fixed(1)}", f"{fixed(14)}", f"neq:{fixed(1)}")),
    *(f"status={value}" for value in ("queued", "active", "in:queued,active", "in:active,deactivated", "deactivated",
    "eq:active", "neq:active", "x", "", "deleted", "killed",
                                      "saving", "Active", "in:x,y", "pending_delete")),
    *(f"container_format={value}" for value in ("bare", "in:bare,ovf", "ovf", "", "x", "eq:bare", "lt:bare",
    "in:bare")),
    *(f"disk_format={value}" for value in ("raw", "in:raw,qcow2", "qcow2", "", "x", "eq:raw", "gte:raw", "RAW")),
    *(f"{name}={value}" for name in ("created_at", "updated_at") for value in (
        "2026-01-01T00:05:00Z", "gt:2026-01-01T00:05:00Z", "gte:2026-01-01T00:05:00Z", "lt:2026-01-01T00:05:00Z",
        "lte:2026-01-01T00:05:00Z",
        "eq:2026-01-01T00:05:00Z", "neq:2026-01-01T00:05:00Z", "gt:2026-01-01T01:05:00%2B01:00",
        "gt:2026-01-01T01:05:00+01:00", "lt:2026-01-01T00:05", "lt:2026-01-01",
        "gt:2026-01-01T23:55:00", "lt:20260101T000500Z", "in:2026-01-01T00:05:00Z", "x", "", "gt:", "gt:x",
        "like:2026-01-01T00:05:00Z", "gt:2026-13-01T00:00:00Z",
        "gt:0001-01-01T00:00:00Z", "lt:9999-12-31T23:59:59Z", "gt:2026-01-01T00:05:00.5Z", "gt:2026-01-01%2000:05:00",
        "eq:2026-01-01T00:05:00-00:00", "GT:2026-01-01",
        "gt:2025-W10", "gt:2026-001", "gt:2026-01-01T24:00:00Z", "gt:0", "gt:1767225900",
    )),
    *(f"{name}{suffix}={value}" for name in ("size", "min_ram", "min_disk", "virtual_size") for suffix in ("", "_min",
    "_max")
      for value in ("0", "1", "7", "21", "-1", "x", "", "1.5", "99999999999", "%2B7", "gt:1")),
    "size_min=5&size_max=10", "size_min=10&size_max=5", "size=7&size=21", "min_ram_max=2147483647",
    "min_ram_min=2147483648",
    f"checksum={MD5}", f"checksum={MD5.upper()}", "checksum=", "checksum=x", f"checksum=in:{MD5}",
    "os_hash_algo=sha512", "os_hash_algo=md5", "os_hash_value=x",
    "os_hash_value=", "protected=true", "protected=false", "protected=True", "protected=1", "protected=", "protected=x",
    *(f"tag={value}" for value in ("a", "A", "a&tag=b", "a&tag=a", "a&tag=x", "", "%20a%20", "%20c%20", "c",
    "%C3%BC/x", "a,b", "in:a,b", "%F0%9F%92%BF", "t" * 256, "%FF", "x")),
    "tags=a", "tag=a&name=alpha", "tag=a&os_distro=debian", "tag=a&tag=b&os_distro=debian&name=alpha&status=active",
    *(f"os_distro={value}" for value in ("debian", "Debian", "", "in:debian,ubuntu", "eq:debian", "x",
    "debian&os_distro=ubuntu", "deb%25", "%F0%9F%92%BF", "v" * 300)),
    "os_version=in:1", "architecture=x,y", "architecture=x%2Cy", "size_hint=pending",
    "size_hint=pending&member_status=all", "unknown=x", "unknown=", "k" * 300 + "=x",
    "%F0%9F%92%BF=x", "=x", "x", "&", "&&limit=2", "a%20b=c", "changes-since=2026-01-01", "changes-since=",
    "deleted=true", "deleted=false", "deleted=x", "is_public=true",
    "property-os_distro=debian", "links=x", "self=x", "schema=x", "file=x", "direct_url=x", "stores=fs",
    "locations=x", "location=x", "owner=${demo}&name=alpha",
    "member=x", "visibility=shared&owner=${demo}", "name=alpha&visibility=all",
    "status=active&visibility=all&os_hidden=false", "created_at_min=1", "os_hidden_min=1",
    "protected_max=1", "id_min=1", "name_max=x", "member_status=all&name=in:alpha,beta", "os_glance_x=1",
    "min_ram_min_max=1", "metadata=x", "deleted_at=x", "project_id=${demo}",
)  # fmt: skip

IN = (
    "in:", "in:,", "in:alpha,", "in:,alpha", "in:%20alpha", "in:alpha%20", "in:a,%20alpha", "in:%22alpha%22%20",
    "in:%20%22alpha%22", "in:%22alpha%22,%20%22beta%22",
    "in:%22%22", "in:%22%22,beta", "in:alpha,,beta", "in:%22alpha%22,", "in:%22alpha", "in:al%22pha%22",
    "in:%22alpha%22x,beta", "in:%22a,b%22", "in:a,b", "in:%22c:d%22",
    "in:c:d", "", "eq:", "eq:c:d", "c:d", "%20alpha", "alpha%20",
)  # fmt: skip

ORDERS = (
    *(f"sort_key={key}&sort_dir={direction}" for key in ("name", "status", "container_format", "disk_format", "size",
    "id", "created_at", "updated_at")
      for direction in ("asc", "desc")),
    *(f"sort={key}" for key in (
        "name", "name:asc", "name:desc", "size:asc,name:desc", "status,name", "name:asc,name:desc", "id:asc",
        "created_at", "updated_at:asc", "", ",", "name,", "name:", "name:x",
        ":asc", "x", "x:asc", "name%20:%20asc", "Name:asc", "name:ASC", "disk_format:asc,size:desc,name:asc",
        "min_ram:asc", "owner:asc", "visibility", "checksum", "name:asc:desc",
        "tags", "os_distro", "deleted", "protected",
    )),
    "sort_key=name", "sort_dir=asc", "sort_dir=desc", "sort_dir=x", "sort_dir=", "sort_key=x", "sort_key=",
    "sort_key=name&sort_key=size", "sort_key=name&sort_key=size&sort_dir=asc",
    "sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc", "sort_key=name&sort_dir=asc&sort_dir=desc",
    "sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc&sort_dir=asc",
    "sort=name&sort_key=name", "sort=name&sort_dir=asc", "sort=name&sort_key=", "sort=name&sort=size",
    "sort_dir=asc&sort_dir=desc", "sort_key=min_ram", "sort_key=owner",
    "sort_key=visibility", "sort_key=name,size", "sort_key=name&sort_dir=ASC",
    "sort_key=name&sort_key=name&sort_dir=asc", "sort_key=created_at&sort_dir=asc&limit=3",
    "sort=size:asc&limit=3", "sort=name:asc&limit=2&visibility=all",
)  # fmt: skip

PAGES = (
    *(f"limit={limit}" for limit in ("0", "1", "2", "25", "1000", "1001", "99999999999999999999", "-1", "-0", "%2B2",
    "1.5", "x", "", "%202", "2%20", "1e1", "0x10", "%D9%A1", "1_0", "2&limit=3")),
    *(f"marker={marker}" for marker in (fixed(1), fixed(2), fixed(9), fixed(14), fixed(13), fixed(8), fixed(15),
    fixed(99), "x", "", "%F0%9F%92%BF", "x" * 300, f"{fixed(1)}&marker={fixed(2)}")),
    *(f"marker={fixed(number)}&limit=2&sort={order}" for number in (1, 3, 4, 5, 9) for order in ("name:asc",
    "name:desc", "size:asc", "disk_format:desc", "id:asc", "created_at:asc",
                                                                                                 "updated_at:desc",
                                                                                                 "status:asc,name:desc")),
    f"marker={fixed(1)}&limit=0", f"marker={fixed(1)}&limit=1&name=alpha",
    f"marker={fixed(1)}&limit=1&tag=a&os_distro=debian", f"marker={fixed(1)}&visibility=all&limit=3",
    "limit=1&name=in:alpha,beta", "limit=1&name=in:%22a:b%22,beta", "limit=1&x=y", "limit=2&tag=a",
    "limit=2&created_at=gt:2026-01-01T00:00:00Z", "limit=1&name=%E6%98%A0",
    "limit=2&os_distro=debian&sort=name:asc", "page_size=1", "limit=1&marker=",
)  # fmt: skip


def _walks() -> Iterator[Step]:
    for query in (
        "limit=3",
        "limit=4&sort=name:asc",
        "limit=3&sort=size:desc",
        "limit=5&visibility=all&member_status=all",
        "limit=2&tag=a",
        "limit=1&name=alpha",
    ):
        for user in ("member", "admin"):
            yield get(f"/v2/images?{query}", user, keep="next", key="next")
            for _ in range(5):
                yield get("${next}", user, keep="next", key="next")
    yield patch(fixed(1), [{"op": "replace", "path": "/name", "value": "zeta"}])
    yield get("/v2/images?sort=name:desc&limit=2")
