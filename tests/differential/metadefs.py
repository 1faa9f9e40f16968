"""Metadata definitions: namespaces with their objects, properties, tags and resource types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.differential.steps import Scenario, Settle, Step, delete, encoded, get, post, put

ROOT = "/v2/metadefs/namespaces"
USERS = ("admin", "member", "reader", "stranger", "here", "there", "service", "nobody")
WRONG: tuple[Any, ...] = (None, 1, ["x"], {"x": "y"}, "", "x")
NAMES = (
    "x",
    "A::B",
    "a b",
    "ä",
    "映像",
    "a/b",
    "a%b",
    "",
    " ",
    "n" * 80,
    "n" * 81,
    "\U0001f4bf",
    "\u0000",
    "OS::Compute::X",
    "a'b",
    "é",
    "..",
)

# What each field is tried with, beside values of wrong types.
NAMESPACE_FIELDS: dict[str, tuple[Any, ...]] = {
    "namespace": NAMES,
    "display_name": ("x", "d" * 80, "d" * 81, "\U0001f4bf", "ü"),
    "description": ("x", "d" * 500, "d" * 501, "\U0001f4bf"),
    "visibility": ("public", "private", "shared", "Public"),
    "protected": (),
    "owner": ("${alt}", "${admin}", "o" * 255, "o" * 256),
    "self": (), "schema": (), "created_at": (), "updated_at": (), "id": (), "more": (),
    "resource_type_associations": (
        [{"name": "T"}], [{"name": "T", "prefix": "p_", "properties_target": "image"}], [{"name": "T"},
        {"name": "T"}], [{}], [{"name": "n" * 81}],
        [{"name": "T", "prefix": "p" * 81}], [{"name": "T", "more": "x"}], [{"name": 1}], [{"prefix": "x"}],
        [{"name": ""}],
    ),
    "properties": (
        {"p": {"title": "t", "type": "string"}}, {"p": {"title": "t"}}, {"p": {"type": "string"}},
        {"p": {"title": "t", "type": "text"}}, {"p": {}}, {"p": "x"},
        {"p": {"title": "t", "type": "integer", "minimum": 1, "maximum": 5, "default": 3}}, {"p": {"title": "t",
        "type": "string", "enum": ["a", "b"], "default": "a"}},
        {"p": {"title": "t", "type": "array", "items": {"type": "string", "enum": ["a"]}, "uniqueItems": True,
        "minItems": 1, "maxItems": 3}},
        {"n" * 81: {"title": "t", "type": "string"}}, {"p": {"title": "t", "type": "string", "more": "x"}},
        {"p": {"title": "t", "type": "boolean", "default": True}},
        {"p": {"title": "t", "type": "string", "name": "p"}}, {"p": {"title": "t", "type": "string", "name": "q"}},
        {"\U0001f4bf": {"title": "t", "type": "string"}},
    ),
    "objects": (
        [{"name": "o"}], [{"name": "o", "description": "d", "required": ["p"], "properties": {"p": {"title": "t",
        "type": "string"}}}], [{}], [{"name": "o"}, {"name": "o"}],
        [{"name": "o", "more": "x"}], [{"name": "n" * 81}], [{"name": "o", "properties": {"p": {"title": "t"}}}],
        [{"name": "o", "required": ["p", "p"]}], ["o"],
    ),
    "tags": ([{"name": "t"}], [{"name": "t"}, {"name": "u"}], [{"name": "t"}, {"name": "t"}], [{}],
    [{"name": "n" * 81}], [{"name": "t", "more": "x"}], ["t"], [{"name": ""}]),
}  # fmt: skip
PROPERTY_FIELDS: dict[str, tuple[Any, ...]] = {
    "name": NAMES,
    "title": ("x", "t" * 1000, "\U0001f4bf"),
    "description": ("x",),
    "type": ("array", "boolean", "integer", "number", "object", "string", "null", "text", ["string"]),
    "operators": (["<or>"], ["<or>", "<or>"], [1]),
    "required": (["a"], ["a", "a"]),
    "minimum": (0, -1, 1.5), "maximum": (0, -1, 1.5),
    "maxLength": (0, 5, -1, 1.5), "minLength": (0, 5, -1),
    "pattern": ("^a+$", "["),
    "enum": (["a", 1, True, None], ["a", "a"]),
    "readonly": (False,),
    "default": ("d", 5, 1.5, False, ["a"], {"a": 1}),
    "items": ({"type": "string"}, {"type": "string", "enum": ["a"]}, {"type": "text"}, {"enum": [1]}, {"more": 1}),
    "maxItems": (0, 5, -1), "minItems": (0, 5, -1),
    "uniqueItems": (False,), "additionalItems": (False,), "confidential": (), "more": (), "created_at": (),
    "schema": (),
}  # fmt: skip
OBJECT_FIELDS: dict[str, tuple[Any, ...]] = {
    "name": NAMES,
    "description": ("x", "d" * 1000),
    "required": (["a"], ["a", "b"], ["a", "a"], ["a,b"], [""], [1]),
    "properties": NAMESPACE_FIELDS["properties"],
    "created_at": (), "updated_at": (), "self": (), "schema": (), "more": (),
}  # fmt: skip
TYPE_FIELDS: dict[str, tuple[Any, ...]] = {
    "name": NAMES,
    "prefix": ("p_", "p" * 80, "p" * 81, "ü"),
    "properties_target": ("image", "p" * 80, "p" * 81),
    "created_at": (), "updated_at": (), "more": (),
}  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    for field, values in NAMESPACE_FIELDS.items():
        for value in (*values, *WRONG):
            # each on its own: where Glance fails, a part of the namespace is there afterwards
            yield Scenario(f"namespace with {field}", list(_namespace(field, value)), chained=True)
    for kind, start, fields in (
        ("properties", {"name": "p", "title": "t", "type": "string"}, PROPERTY_FIELDS),
        ("objects", {"name": "p"}, OBJECT_FIELDS),
    ):
        for field, values in fields.items():
            for number, value in enumerate((*values, *WRONG)):
                steps = list(_part(kind, start, field, value, change=bool(number % 2)))
                yield Scenario(f"{kind} with {field}", steps, chained=True)
    for field, values in TYPE_FIELDS.items():
        for value in (*values, *WRONG):
            yield Scenario(f"association with {field}", list(_association(field, value)), chained=True)
    yield Scenario("bodies", list(_bodies()))
    yield Scenario("tags of a namespace", list(_tags()))
    yield Scenario("a namespace's life", list(_life()))
    yield Scenario("namespaces by whom", list(_by_whom()))
    yield Scenario("parts by whom", list(_parts_by_whom()))
    yield Scenario("protected", list(_protected()))
    yield Scenario("names in paths", list(_odd_paths()))
    yield Scenario("pages of namespaces", list(_pages()))
    yield Scenario("lists of parts", list(_part_lists()))
    yield Scenario("prefixes", list(_prefixes()))


def _new(name: str = "n", **fields: Any) -> Step:
    return post(ROOT, "admin", json={"namespace": name, **fields})


def _namespace(field: str, value: Any) -> Iterator[Step]:
    yield _new(**{field: value})
    name = value if field == "namespace" and isinstance(value, str) and value not in ("", "..") else "n"
    yield get(f"{ROOT}/{encoded(name)}", "member" if field in ("visibility", "owner") else "admin")
    if not isinstance(value, list | dict):  # nested parts mean nothing to PUT
        yield _new("old")
        yield put(f"{ROOT}/old", "admin", json={"namespace": "m", field: value if name == "n" else f"{value}2"})


def _part(kind: str, start: dict[str, Any], field: str, value: Any, change: bool) -> Iterator[Step]:
    yield _new()
    if change:
        yield post(f"{ROOT}/n/{kind}", "admin", json={**start, "name": "old"})
        yield put(f"{ROOT}/n/{kind}/old", "admin", json={**start, field: value})
    else:
        yield post(f"{ROOT}/n/{kind}", "admin", json={**start, field: value})
    yield get(f"{ROOT}/n/{kind}", "admin")


def _association(field: str, value: Any) -> Iterator[Step]:
    yield _new()
    yield post(f"{ROOT}/n/resource_types", "admin", json={"name": "T", field: value})
    yield get(f"{ROOT}/n/resource_types", "admin")
    yield get("/v2/metadefs/resource_types", "admin")


def _bodies() -> Iterator[Step]:
    yield _new("n")
    targets = (
        ("POST", ROOT), ("PUT", f"{ROOT}/n"), ("POST", f"{ROOT}/n/objects"), ("POST", f"{ROOT}/n/properties"),
        ("POST", f"{ROOT}/n/resource_types"), ("POST", f"{ROOT}/n/tags"),
        ("PUT", f"{ROOT}/n/objects/x"), ("PUT", f"{ROOT}/n/properties/x"), ("PUT", f"{ROOT}/n/tags/x"),
    )  # fmt: skip
    for method, path in targets:
        for body in (b"", b"{", b"null", b"1", b"[]", b"{}", b'"x"', b"\xff", b'{"name": "x"} x'):
            yield Step("admin", method, path, body=body)
        yield Step("member", method, path, body=b"{}")
    for path in ("", "/objects", "/properties", "/resource_types", "/tags", "/objects/x", "/properties/x", "/tags/x"):
        yield get(f"{ROOT}/n{path}", "admin", body=b"x")
    for path in ("/resource_types/x", "/objects/x", "/properties/x", "/tags/x", "/tags", "/objects", "/properties", ""):
        yield delete(f"{ROOT}/n{path}", "admin", body=b"x")
    yield get(ROOT, "admin", body=b"x")
    yield get("/v2/metadefs/resource_types", "admin", body=b"x")
    yield post(f"{ROOT}/n/tags/x", "admin", body=b"x")


def _tags() -> Iterator[Step]:
    yield _new("n", visibility="public")
    root = f"{ROOT}/n/tags"
    for name in (*NAMES[:10], "x", "X"):
        if name not in ("", ".."):
            yield post(f"{root}/{encoded(name)}", "admin")
            yield get(f"{root}/{encoded(name)}")
    for body in (
        {"name": "y"}, {"name": "A::B"}, {"name": ""}, {"name": "n" * 81}, {"name": 1}, {}, {"name": "z", "more": 1},
        {"name": "z", "created_at": "x"}, {"name": "\U0001f4bf"}, [],
    ):  # fmt: skip
        yield put(f"{root}/x", "admin", json=body)
        yield get(root)
    for body in (
        {"tags": [{"name": "a"}, {"name": "b"}]}, {"tags": [{"name": "c"}]}, {"tags": []}, {"tags": [{"name": "a"},
        {"name": "a"}]}, {"tags": [{}]}, {"tags": "x"}, {},
        {"tags": [{"name": "a", "more": 1}]}, {"tags": ["a"]}, {"tags": [{"name": "n" * 81}]},
        {"tags": [{"name": "a"}], "more": 1}, {"tags": [{"name": "A"}, {"name": "a"}]},
    ):  # fmt: skip
        for append in (
            {},
            {"X-Openstack-Append": "true"},
            {"X-Openstack-Append": "True"},
            {"X-Openstack-Append": "no"},
        ):
            yield post(root, "admin", json=body, headers=append)
            yield get(f"{root}?sort_key=name&sort_dir=asc")
    yield delete(f"{root}/a", "admin")
    yield delete(f"{root}/a", "admin")
    yield delete(f"{root}/none", "admin")
    yield delete(root, "admin")
    yield get(root)
    for path in (f"{ROOT}/none/tags", f"{ROOT}/none/tags/x"):
        yield get(path, "admin")
        yield post(path, "admin", json={"tags": [{"name": "a"}]}) if path.endswith("tags") else post(path, "admin")
        yield delete(path, "admin")


FULL: dict[str, Any] = {
    "display_name": "d", "description": "long", "visibility": "public", "protected": False,
    "resource_type_associations": [{"name": "OS::A", "prefix": "a_"}, {"name": "OS::B", "properties_target": "image"}],
    "properties": {
        "p1": {"title": "t", "type": "string", "description": "d", "enum": ["x", "y"], "default": "x",
        "operators": ["<or>"], "readonly": True},
        "p2": {"title": "t", "type": "integer", "minimum": 1, "maximum": 9, "default": 5},
        "p3": {"title": "t", "type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1,
        "maxItems": 2, "uniqueItems": True},
        "p4": {"title": "t", "type": "boolean", "default": False}, "p5": {"title": "t", "type": "number",
        "default": 1.5, "minimum": 0.5},
        "p6": {"title": "t", "type": "string", "minLength": 1, "maxLength": 5, "pattern": "^a"},
    },
    "objects": [
        {"name": "o1", "description": "d", "required": ["q1"], "properties": {"q1": {"title": "t", "type": "string",
        "default": "v"}, "q2": {"title": "t", "type": "integer"}}},
        {"name": "o2"},
    ],
    "tags": [{"name": "t1"}, {"name": "t2"}],
}  # fmt: skip
PLACES = (
    "",
    "/objects",
    "/objects/o1",
    "/objects/o2",
    "/properties",
    *(f"/properties/p{number}" for number in range(1, 7)),
    "/tags",
    "/tags/t1",
    "/resource_types",
)


def _life() -> Iterator[Step | Settle]:
    yield _new("n", **FULL)
    yield _new("n", **FULL)
    yield _new("m")
    yield from (get(f"{ROOT}/n{place}") for place in PLACES)
    yield get("/v2/metadefs/resource_types")
    yield put(f"{ROOT}/n", "admin", json={"namespace": "n", "visibility": "public", "display_name": "other"})
    yield get(f"{ROOT}/n")
    yield put(f"{ROOT}/n", "admin", json={"namespace": "m"})
    yield put(
        f"{ROOT}/n",
        "admin",
        json={"namespace": "renamed", "visibility": "public", **{key: FULL[key] for key in ("objects", "tags")}},
    )
    yield get(f"{ROOT}/n")
    yield get(f"{ROOT}/renamed")
    for kind, first, second in (("objects", "o1", "o2"), ("properties", "p1", "p2"), ("tags", "t1", "t2")):
        more = {"title": "t", "type": "string"} if kind == "properties" else {}
        yield put(f"{ROOT}/renamed/{kind}/{first}", "admin", json={"name": second, **more})
        yield put(f"{ROOT}/renamed/{kind}/{first}", "admin", json={"name": "new", **more})
        yield get(f"{ROOT}/renamed/{kind}/{first}")
        yield get(f"{ROOT}/renamed/{kind}/new")
        yield put(f"{ROOT}/renamed/{kind}/none", "admin", json={"name": "none", **more})
        if kind != "tags":
            yield post(f"{ROOT}/renamed/{kind}", "admin", json={"name": "new", **more})
        yield delete(f"{ROOT}/renamed/{kind}/new", "admin")
        yield delete(f"{ROOT}/renamed/{kind}/new", "admin")
    yield post(f"{ROOT}/renamed/resource_types", "admin", json={"name": "OS::A"})
    yield delete(f"{ROOT}/renamed/resource_types/{encoded('OS::A')}", "admin")
    yield delete(f"{ROOT}/renamed/resource_types/{encoded('OS::A')}", "admin")
    yield delete(f"{ROOT}/renamed/resource_types/none", "admin")
    for kind in ("objects", "properties", "tags"):
        yield delete(f"{ROOT}/renamed/{kind}", "admin")
        yield get(f"{ROOT}/renamed/{kind}")
    yield get(f"{ROOT}/renamed")
    yield delete(f"{ROOT}/renamed", "admin")
    yield delete(f"{ROOT}/renamed", "admin")
    yield from (get(f"{ROOT}/renamed{place}", "admin") for place in PLACES)
    yield get("/v2/metadefs/resource_types")
    yield _new("renamed")


def _by_whom() -> Iterator[Step]:
    for visibility in ("public", "private"):
        for owner in ("${demo}", "${admin}"):
            name = f"{visibility}-{owner[2:-1]}"
            yield _new(name, **{**FULL, "visibility": visibility, "owner": owner})
            for user in USERS:
                yield from (get(f"{ROOT}/{name}{place}", user) for place in ("", "/objects/o1", "/tags"))
    for user in USERS:
        yield get(f"{ROOT}?sort_key=namespace&sort_dir=asc", user)
        yield get(f"{ROOT}?visibility=private&sort_key=namespace&sort_dir=asc", user)
        yield get("/v2/metadefs/resource_types", user)


def _parts_by_whom() -> Iterator[Step]:
    for user in ("admin", "member", "stranger", "service", "nobody"):
        yield post(ROOT, user, json={"namespace": f"by-{user}"})
        yield post(ROOT, user, json={"namespace": f"by2-{user}", "owner": "${alt}"})
        for visibility in ("public", "private"):
            name = f"{visibility}-{user}"
            yield _new(name, **{**FULL, "visibility": visibility, "owner": "${demo}"})
            yield post(f"{ROOT}/{name}/objects", user, json={"name": "mine"})
            yield post(f"{ROOT}/{name}/properties", user, json={"name": "mine", "title": "t", "type": "string"})
            yield post(f"{ROOT}/{name}/tags/mine", user)
            yield post(f"{ROOT}/{name}/tags", user, json={"tags": [{"name": "m"}]})
            yield post(f"{ROOT}/{name}/resource_types", user, json={"name": "mine"})
            yield put(f"{ROOT}/{name}/objects/o1", user, json={"name": "o1"})
            yield put(f"{ROOT}/{name}/properties/p1", user, json={"name": "p1", "title": "t", "type": "string"})
            yield put(f"{ROOT}/{name}/tags/t1", user, json={"name": "t3"})
            yield put(f"{ROOT}/{name}", user, json={"namespace": name})
            for place in (
                "/objects/o1",
                "/properties/p1",
                "/tags/m",
                "/resource_types/OS::A",
                "/objects",
                "/properties",
                "/tags",
                "",
            ):
                yield delete(f"{ROOT}/{name}{place}", user)


def _protected() -> Iterator[Step]:
    yield _new("n", **{**FULL, "protected": True})
    for place in (
        "",
        "/objects/o1",
        "/properties/p1",
        "/tags/t1",
        "/resource_types/OS::A",
        "/objects",
        "/properties",
        "/tags",
        "/objects/none",
        "/tags/none",
    ):
        for user in ("admin", "member"):
            yield delete(f"{ROOT}/n{place}", user)
    yield post(f"{ROOT}/n/objects", "admin", json={"name": "new"})
    yield put(f"{ROOT}/n/objects/new", "admin", json={"name": "newer"})
    yield post(f"{ROOT}/n/tags", "admin", json={"tags": [{"name": "x"}]})
    yield post(f"{ROOT}/n/resource_types", "admin", json={"name": "new"})
    yield put(f"{ROOT}/n", "admin", json={"namespace": "n", "protected": False})
    yield delete(f"{ROOT}/n/objects/newer", "admin")
    yield delete(f"{ROOT}/n", "admin")


def _odd_paths() -> Iterator[Step]:
    yield _new("n")
    for name in ("none", "%20", "%00", "%F0%9F%92%BF", "n" * 81, "N", "a%2Fb", "n%20", "%C3%A4"):
        yield get(f"{ROOT}/{name}", "admin")
        for kind in ("objects", "properties", "tags"):
            yield get(f"{ROOT}/n/{kind}/{name}", "admin")
            yield delete(f"{ROOT}/n/{kind}/{name}", "admin")
        yield delete(f"{ROOT}/n/resource_types/{name}", "admin")
    for query in ("resource_type=T", "x=y", "resource_type=", "resource_type=T&x=y", "limit=1"):
        yield get(f"{ROOT}/n?{query}", "admin")


QUERIES = (
    "", "limit=0", "limit=1", "limit=2", "limit=1000", "limit=-1", "limit=x", "limit=", "limit=99999999999999999999",
    "marker=b", "marker=none", "marker=", "marker=b&limit=1",
    "marker=secret", "sort_key=namespace", "sort_key=namespace&sort_dir=asc", "sort_key=created_at&sort_dir=asc",
    "sort_key=updated_at", "sort_key=x", "sort_key=", "sort_dir=asc",
    "sort_dir=desc", "sort_dir=x", "sort_dir=", "visibility=public", "visibility=private", "visibility=x",
    "visibility=", "resource_types=OS::A", "resource_types=OS::A,OS::C",
    "resource_types=none", "resource_types=", "resource_types=OS::A&limit=1", "x=y", "protected=true",
    "owner=${demo}", "display_name=b", "sort_key=visibility&sort_dir=asc",
    "sort_key=owner&sort_dir=asc", "marker=b&sort_key=namespace&sort_dir=asc",
    "limit=2&sort_key=namespace&sort_dir=asc&visibility=public", "namespace=b", "sort_key=id",
    "marker=%F0%9F%92%BF", "resource_types=%F0%9F%92%BF", "limit=1&limit=2", "sort_key=namespace&sort_key=created_at",
)  # fmt: skip


def _pages() -> Iterator[Step | Settle]:
    for name, visibility, owner, kind in (
        ("a", "public", "${demo}", "OS::A"), ("b", "public", "${admin}", "OS::B"), ("c", "private", "${demo}",
        "OS::A"), ("d", "public", "${alt}", "OS::C"),
        ("secret", "private", "${alt}", "OS::A"),
    ):  # fmt: skip
        yield _new(
            name,
            visibility=visibility,
            owner=owner,
            display_name=name,
            resource_type_associations=[{"name": kind, "prefix": "x_"}],
        )
    yield Settle()
    for query in QUERIES:
        for user in ("admin", "member"):
            yield get(f"{ROOT}?{query}", user)
    yield get(f"{ROOT}?limit=2", "admin", keep="next", key="next")
    yield get("${next}", "admin", keep="next", key="next")
    yield get("${next}", "admin")


def _part_lists() -> Iterator[Step]:
    yield _new("n", **FULL)
    for kind in ("objects", "properties", "tags", "resource_types"):
        for query in (
            "limit=1", "limit=0", "limit=-1", "limit=x", "limit=", "marker=none", "sort_key=name",
            "sort_key=name&sort_dir=asc", "sort_key=x", "sort_dir=x", "visibility=public",
            "visibility=x", "visibility=shared", "x=y", "sort_dir=asc&sort_key=created_at",
            "limit=99999999999999999999",
        ):  # fmt: skip
            yield get(f"{ROOT}/n/{kind}?{query}", "admin")
    for query in (
        "marker=t1&sort_key=name&sort_dir=asc",
        "marker=t2&sort_key=name&sort_dir=desc",
        "limit=1&sort_key=name&sort_dir=asc",
        "marker=o1",
    ):
        yield get(f"{ROOT}/n/tags?{query}", "admin")
        yield get(f"{ROOT}/n/objects?{query}", "admin")


def _prefixes() -> Iterator[Step]:
    yield _new("n", **FULL)
    for kind in ("OS::A", "OS::B", "none"):
        yield get(f"{ROOT}/n?resource_type={kind}")
        for name in ("p1", "a_p1", "a_none", "x_p1"):
            yield get(f"{ROOT}/n/properties/{name}?resource_type={kind}")
        yield get(f"{ROOT}/n/objects/o1?resource_type={kind}")
        yield get(f"{ROOT}/n/properties?resource_type={kind}")
