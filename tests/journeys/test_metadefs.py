"""Metadata definitions: namespaces, and the objects, properties, tags and resource types in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from .client import Api, unused

PATH = "/v2/metadefs/namespaces"
TEXT = {"title": "Text", "type": "string"}
# How a body of each kind looks, and what comes back of it.
PARTS: dict[str, dict[str, Any]] = {
    "objects": {"name": "disk", "description": "d", "required": ["size"], "properties": {"size": TEXT}},
    "properties": {"name": "size", **TEXT},
    "resource_types": {"name": "OS::Test::Thing", "prefix": "hw:", "properties_target": "image"},
}
CHANGED = ("objects", "properties", "tags")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Definitions:
    """Metadata definitions as one caller sees them."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def namespace(self, **fields: Any) -> str:
        """The path of a new namespace."""
        name = f"test-{unused()}"
        body = {"namespace": name, "owner": "somebody", **fields}
        response = self.api.request("POST", PATH, json=body)
        assert response.status_code == 201, response.text
        return f"{PATH}/{name}"

    def ask(self, method: str, path: str, status: int, body: Any = None, **arguments: Any) -> Any:
        """One request; the body of its answer."""
        if body is not None:
            arguments["json"] = body
        response = self.api.request(method, path, **arguments)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content and status < 400 else None

    def remove(self, path: str) -> None:
        """Take a namespace away, whatever state it is in."""
        name = path.rpartition("/")[2]
        self.api.request("PUT", path, json={"namespace": name, "protected": False, "owner": "somebody"})
        self.api.request("DELETE", path)


@pytest.fixture
def definitions(api: Api) -> Definitions:
    """As an administrator."""
    return Definitions(api)


@pytest.fixture
def home(definitions: Definitions) -> Iterator[str]:
    """A namespace with nothing in it."""
    path = definitions.namespace()
    yield path
    definitions.remove(path)


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """A document without its times, which have to look like times."""
    times = [document[key] for key in ("created_at", "updated_at") if key in document]
    assert all(TIME.fullmatch(time) for time in times)
    return {key: value for key, value in document.items() if key not in ("created_at", "updated_at")}


def by_name(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Glance leaves the order of most lists to its database."""
    return sorted(found, key=lambda each: str(each["name"]))


# --- namespaces ------------------------------------------------------------------------------------------------------


def test_a_namespace_has_defaults_and_a_location(definitions: Definitions, api: Api) -> None:
    name = f"test::{unused()}"
    response = api.request("POST", PATH, json={"namespace": name, "owner": "somebody"})
    assert response.status_code == 201
    assert response.headers["Location"].endswith(f"{PATH}/{name}")
    expected = {
        "namespace": name,
        "visibility": "private",
        "protected": False,
        "owner": "somebody",
        "self": f"{PATH}/{name}",
        "schema": "/v2/schemas/metadefs/namespace",
    }
    assert without_times(response.json()) == expected
    assert without_times(definitions.ask("GET", f"{PATH}/{name}", 200)) == expected
    definitions.ask("DELETE", f"{PATH}/{name}", 204)
    definitions.ask("GET", f"{PATH}/{name}", 404)
    definitions.ask("DELETE", f"{PATH}/{name}", 404)


def test_a_namespace_comes_with_everything_in_it(definitions: Definitions) -> None:
    parts = {
        "resource_type_associations": [{"name": "OS::Test::Thing", "prefix": "p_"}, {"name": "OS::Test::Other"}],
        "objects": [{"name": "disk", "required": ["a"], "properties": {"a": TEXT}}, {"name": "bare"}],
        "properties": {"size": {**TEXT, "default": 5, "enum": ["1", "5"]}},
        "tags": [{"name": "one"}, {"name": "two"}],
    }
    path = definitions.namespace(visibility="public", display_name="D", description="d", **parts)
    shown = definitions.ask("GET", path, 200)
    assert (shown["display_name"], shown["description"], shown["visibility"]) == ("D", "d", "public")
    types = by_name(shown["resource_type_associations"])
    assert [without_times(each) for each in types] == parts["resource_type_associations"][::-1]
    links = {"schema": "/v2/schemas/metadefs/object"}
    assert [without_times(each) for each in by_name(shown["objects"])] == [
        {"name": "bare", "required": [], "properties": {}, "self": f"{path}/objects/bare", **links},
        {**parts["objects"][0], "self": f"{path}/objects/disk", **links},
    ]
    assert shown["properties"] == {"size": {**TEXT, "default": "5", "enum": ["1", "5"]}}
    assert shown["tags"] == [{"name": "two"}, {"name": "one"}]

    on_thing = definitions.ask("GET", f"{path}?resource_type=OS::Test::Thing", 200)
    assert on_thing["properties"].keys() == {"p_size"}
    disk = by_name(on_thing["objects"])[1]
    assert disk["required"] == ["p_a"]
    assert disk["properties"].keys() == {"p_a"}
    for other in ("OS::Test::Other", "OS::Test::Nothing", ""):
        assert definitions.ask("GET", f"{path}?resource_type={other}", 200) == shown
    definitions.remove(path)


@pytest.mark.parametrize(
    "parts",
    [
        {"objects": [{"name": "twice"}, {"name": "twice"}]},
        {"tags": [{"name": "twice"}, {"name": "twice"}]},
        {"resource_type_associations": [{"name": "OS::Test::Thing"}, {"name": "OS::Test::Thing"}]},
    ],
)
def test_a_namespace_is_made_as_a_whole_or_not_at_all(definitions: Definitions, parts: dict[str, Any]) -> None:
    name = f"test-{unused()}"
    definitions.ask("POST", PATH, 409, {"namespace": name, "owner": "x", **parts})
    definitions.ask("GET", f"{PATH}/{name}", 404)


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, {"namespace": "n" * 81}),
        (400, {"display_name": "d" * 81}),
        (400, {"description": "d" * 501}),
        (400, {"visibility": "shared"}),
        (400, {"visibility": None}),
        (400, {"protected": "yes"}),
        (400, {"owner": "o" * 256}),
        (400, {"unknown": "x"}),
        (400, {"description": "\U0001f600"}),
        (400, {"properties": {"a": {"type": "string"}}}),
        (400, {"properties": {"a": {**TEXT, "type": "text"}}}),
        (403, {"created_at": "2026-01-01T00:00:00Z"}),
        (403, {"updated_at": "2026-01-01T00:00:00Z"}),
        (403, {"self": "/v2"}),
        (403, {"schema": "/v2"}),
    ],
)
def test_what_a_namespace_cannot_be(definitions: Definitions, status: int, fields: dict[str, Any]) -> None:
    name = f"test-{unused()}"
    definitions.ask("POST", PATH, status, {"namespace": name, "owner": "x", **fields})
    definitions.ask("GET", f"{PATH}/{name}", 404)


@pytest.mark.better_than_glance  # which answers 500, and keeps half of it; or makes what has no URL
@pytest.mark.parametrize(
    "fields",
    [
        {"namespace": ""},
        {"namespace": "a/b"},
        {"properties": {"a": {**TEXT, "unknown": 1}}},
        {"properties": {"a": {**TEXT, "required": ["b"]}}},
        {"properties": {"a": {**TEXT, "enum": [1]}}},
        {"properties": {"a": {**TEXT, "items": {"enum": ["a"]}}}},
        {"properties": {"a": {**TEXT, "items": {"type": "string", "unknown": 1}}}},
        {"properties": {"a": {**TEXT, "maximum": 2**70}}},
        {"properties": {"a" * 81: TEXT}},
        {"objects": [{"description": "without a name"}]},
        {"objects": [{"name": "o" * 81}]},
        {"objects": [{"name": "o", "unknown": 1}]},
        {"tags": [{}]},
        {"tags": [{"name": "t" * 81}]},
        {"tags": [{"name": "nul\0"}]},
        {"resource_type_associations": [{"prefix": "without a name"}]},
        {"resource_type_associations": [{"name": "a", "prefix": "p" * 81}]},
        {"objects": [{"name": "o", "description": "d" * 70_000}]},
    ],
)
def test_what_is_wrong_inside_is_refused_too(definitions: Definitions, fields: dict[str, Any]) -> None:
    name = f"test-{unused()}"
    definitions.ask("POST", PATH, 400, {"namespace": name, "owner": "x", **fields})
    definitions.ask("GET", f"{PATH}/{name}", 404)


@pytest.mark.better_than_glance  # 500
def test_a_list_is_no_namespace(definitions: Definitions) -> None:
    definitions.ask("POST", PATH, 400, [1])


def test_bodies_that_are_no_json(definitions: Definitions) -> None:
    definitions.ask("POST", PATH, 400)
    definitions.ask("POST", PATH, 400, content=b"{")


def test_a_change_replaces_all_fields_but_not_what_is_inside(definitions: Definitions) -> None:
    path = definitions.namespace(display_name="D", description="d", visibility="public", tags=[{"name": "t"}])
    body = {"namespace": name_of(path), "owner": "else", "objects": [{"name": "ignored"}]}
    changed = definitions.ask("PUT", path, 200, body)
    assert changed["visibility"] == "private"
    assert "display_name" not in changed
    shown = definitions.ask("GET", path, 200)
    assert shown["owner"] == "else"
    assert shown["tags"] == [{"name": "t"}]
    assert "objects" not in shown
    definitions.remove(path)


def test_a_namespace_can_be_renamed_but_not_onto_another(definitions: Definitions) -> None:
    one, two = definitions.namespace(tags=[{"name": "t"}]), definitions.namespace()
    definitions.ask("PUT", one, 409, {"namespace": name_of(two), "owner": "x"})
    new = f"test-{unused()}"
    definitions.ask("PUT", one, 200, {"namespace": new, "owner": "x"})
    definitions.ask("GET", one, 404)
    assert definitions.ask("GET", f"{PATH}/{new}", 200)["tags"] == [{"name": "t"}]
    definitions.remove(f"{PATH}/{new}")
    definitions.remove(two)


def test_a_name_is_taken_once(definitions: Definitions, home: str) -> None:
    definitions.ask("POST", PATH, 409, {"namespace": name_of(home), "owner": "x"})


# --- lists of namespaces ---------------------------------------------------------------------------------------------


@pytest.fixture
def listed(definitions: Definitions) -> Iterator[tuple[str, list[str]]]:
    """Five namespaces with a resource type of their own, in the order of their display names."""
    kind = f"OS::Test::{unused()}"
    paths = [
        definitions.namespace(
            display_name=str(number),
            visibility="public" if number % 2 else "private",
            resource_type_associations=[{"name": kind, "prefix": "p:"}],
        )
        for number in range(5)
    ]
    yield kind, [name_of(path) for path in paths]
    for path in paths:
        definitions.remove(path)


def test_a_list_walks_in_pages(definitions: Definitions, listed: tuple[str, list[str]]) -> None:
    kind, names = listed
    for sort_key, direction, expected in (
        ("display_name", "asc", names),
        ("display_name", "desc", names[::-1]),
        ("created_at", "desc", names[::-1]),
        ("namespace", "asc", sorted(names)),
        ("owner", "asc", names),
    ):
        link = f"{PATH}?resource_types={kind}&sort_key={sort_key}&sort_dir={direction}&limit=2"
        first, found = link, []
        while link:
            page = definitions.ask("GET", link, 200)
            found += [each["namespace"] for each in page["namespaces"]]
            assert page["schema"] == "/v2/schemas/metadefs/namespaces"
            assert httpx.URL(page["first"]).params == httpx.URL(first).params
            link = page.get("next")
        assert found == expected


def test_items_of_a_list_have_resource_types_but_nothing_else(
    definitions: Definitions, listed: tuple[str, list[str]]
) -> None:
    kind, names = listed
    for each in definitions.ask("GET", f"{PATH}?resource_types={kind},other", 200)["namespaces"]:
        assert [without_times(one) for one in each["resource_type_associations"]] == [{"name": kind, "prefix": "p:"}]
        assert not {"objects", "properties", "tags"} & each.keys()
        assert each["self"] == f"{PATH}/{each['namespace']}"
    public = definitions.ask("GET", f"{PATH}?resource_types={kind}&visibility=public", 200)["namespaces"]
    assert [each["namespace"] for each in public] == [names[3], names[1]]
    assert definitions.ask("GET", f"{PATH}?resource_types=nothing", 200)["namespaces"] == []
    assert definitions.ask("GET", f"{PATH}?limit=0", 200)["namespaces"] == []


@pytest.mark.parametrize(
    ("status", "query"),
    [(400, "limit=-1"), (400, "sort_dir=up"), (400, "visibility=shared"), (404, "marker=nothing")]
    + [
        pytest.param(400, query, marks=pytest.mark.better_than_glance)  # 500
        for query in ("limit=x", "limit=", "sort_key=nothing", "sort_key=")
    ],
)
def test_parameters_of_a_list_that_make_no_sense(definitions: Definitions, status: int, query: str) -> None:
    definitions.ask("GET", f"{PATH}?{query}", status)


# --- what is in a namespace ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PARTS)
def test_a_definition_is_made_once_shown_and_listed(definitions: Definitions, home: str, kind: str) -> None:
    body = PARTS[kind]
    made = definitions.ask("POST", f"{home}/{kind}", 201, body)
    assert {key: made[key] for key in body} == body
    definitions.ask("POST", f"{home}/{kind}", 409, body)
    listed = definitions.ask("GET", f"{home}/{kind}", 200)
    if kind == "properties":
        assert listed == {"properties": {"size": body}}
    else:
        assert {key: listed[next(iter(listed.keys() - {"schema"}))][0][key] for key in body} == body
    if kind != "resource_types":
        assert definitions.ask("GET", f"{home}/{kind}/{body['name']}", 200) == made
    definitions.ask("DELETE", f"{home}/{kind}/{body['name']}", 204)
    definitions.ask("DELETE", f"{home}/{kind}/{body['name']}", 404)


@pytest.mark.parametrize("kind", PARTS)
def test_a_definition_needs_a_name_and_nothing_unknown(definitions: Definitions, home: str, kind: str) -> None:
    body = PARTS[kind]
    definitions.ask("POST", f"{home}/{kind}", 400, {})
    definitions.ask("POST", f"{home}/{kind}", 400)
    definitions.ask("POST", f"{home}/{kind}", 400, {**body, "unknown": 1})
    definitions.ask("POST", f"{home}/{kind}", 400, {**body, "name": "n" * 81})
    definitions.ask("POST", f"{home}/{kind}", 403, {**body, "created_at": "2026-01-01T00:00:00Z"})
    definitions.ask("POST", f"{PATH}/nothing/{kind}", 404, body)


@pytest.mark.parametrize("kind", ["objects", "properties"])
def test_a_change_replaces_the_whole_definition(definitions: Definitions, home: str, kind: str) -> None:
    body = PARTS[kind]
    definitions.ask("POST", f"{home}/{kind}", 201, body)
    other = {"name": "other", **({} if kind == "objects" else {"title": "T", "type": "integer", "default": 1})}
    definitions.ask("PUT", f"{home}/{kind}/{body['name']}", 200, other)
    definitions.ask("GET", f"{home}/{kind}/{body['name']}", 404)
    shown = definitions.ask("GET", f"{home}/{kind}/other", 200)
    assert "description" not in shown
    assert shown.get("default") == (None if kind == "objects" else "1")
    definitions.ask("PUT", f"{home}/{kind}/nothing", 404, other)
    definitions.ask("PUT", f"{home}/{kind}/other", 400, {})


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "tags" else pytest.mark.better_than_glance) for kind in CHANGED]
)
def test_a_new_name_must_be_free(definitions: Definitions, home: str, kind: str) -> None:
    """Glance answers 500, but for tags."""
    fields = {"name": "a", **(TEXT if kind == "properties" else {})}
    for name in ("a", "b"):
        if kind == "tags":
            definitions.ask("POST", f"{home}/tags/{name}", 201)
        else:
            definitions.ask("POST", f"{home}/{kind}", 201, {**fields, "name": name})
    definitions.ask("PUT", f"{home}/{kind}/a", 409, {**fields, "name": "b"})
    definitions.ask("PUT", f"{home}/{kind}/a", 200, fields)


@pytest.mark.parametrize("kind", CHANGED)
def test_a_kind_can_be_cleared(definitions: Definitions, kind: str) -> None:
    path = definitions.namespace(objects=[{"name": "o"}], properties={"p": TEXT}, tags=[{"name": "t"}])
    definitions.ask("DELETE", f"{path}/{kind}", 204)
    shown = definitions.ask("GET", path, 200)
    assert {key for key in CHANGED if key in shown} == set(CHANGED) - {kind}
    definitions.remove(path)


def test_nothing_in_a_protected_namespace_is_deleted(definitions: Definitions) -> None:
    path = definitions.namespace(
        protected=True, objects=[{"name": "a"}], properties={"a": TEXT}, tags=[{"name": "a"}],
        resource_type_associations=[{"name": "a"}],
    )  # fmt: skip
    for part in ("", "/objects", "/properties", "/tags"):
        definitions.ask("DELETE", path + part, 403)
    for kind in ("objects", "properties", "tags", "resource_types"):
        definitions.ask("DELETE", f"{path}/{kind}/a", 403)
        definitions.ask("DELETE", f"{path}/{kind}/nothing", 404)
    definitions.ask("POST", f"{path}/tags/b", 201)
    definitions.ask("PUT", f"{path}/tags/b", 200, {"name": "c"})
    definitions.remove(path)
    definitions.ask("GET", path, 404)


@pytest.mark.parametrize(
    ("sent", "answered"),
    [("x", "x"), (5, "5"), (1.5, "1.5"), (True, "True"), (["a"], None), ({"a": 1}, None), (None, None)],
)
def test_the_default_of_a_property_is_a_text(definitions: Definitions, home: str, sent: Any, answered: Any) -> None:
    definitions.ask("POST", f"{home}/properties", 201, {"name": "p", **TEXT, "default": sent})
    assert definitions.ask("GET", f"{home}/properties/p", 200)["default"] == answered


def test_every_field_of_a_property_comes_back(definitions: Definitions, home: str) -> None:
    body = {
        "name": "p", "title": "T", "type": "array", "description": "d", "operators": ["<in>"], "readonly": True,
        "minimum": 1, "maximum": 9, "minLength": 0, "maxLength": 5, "pattern": "[a-z]", "enum": ["a", "b"],
        "items": {"type": "string", "enum": ["a"]}, "minItems": 0, "maxItems": 3, "uniqueItems": True,
        "additionalItems": False,
    }  # fmt: skip
    assert definitions.ask("POST", f"{home}/properties", 201, body) == body
    assert definitions.ask("GET", f"{home}/properties/p", 200) == body
    definitions.ask("POST", f"{home}/properties", 400, {"name": "q", **TEXT, "minLength": -1})
    definitions.ask("POST", f"{home}/properties", 400, {"name": "q", "type": "string"})
    definitions.ask("POST", f"{home}/properties", 400, {"name": "q", **TEXT, "default": "ü"})


def test_a_property_under_the_name_that_it_has_on_a_resource(definitions: Definitions) -> None:
    kinds = [{"name": "OS::Test::Thing", "prefix": "hw:"}, {"name": "OS::Test::Other"}]
    path = definitions.namespace(properties={"size": TEXT}, resource_type_associations=kinds)
    url = f"{path}/properties"
    assert definitions.ask("GET", f"{url}/hw:size?resource_type=OS::Test::Thing", 200) == {"name": "size", **TEXT}
    definitions.ask("GET", f"{url}/size?resource_type=OS::Test::Thing", 404)
    definitions.ask("GET", f"{url}/size?resource_type=OS::Test::Other", 404)
    definitions.ask("GET", f"{url}/hw:size?resource_type=OS::Test::Nothing", 404)
    definitions.ask("GET", f"{url}/hw:other?resource_type=OS::Test::Thing", 404)
    definitions.remove(path)


def test_required_is_a_list_with_commas_between(definitions: Definitions, home: str) -> None:
    definitions.ask("POST", f"{home}/objects", 201, {"name": "o", "required": ["a", "b,c"]})
    assert definitions.ask("GET", f"{home}/objects/o", 200)["required"] == ["a", "b", "c"]


def test_objects_check_parameters_that_they_do_not_heed(definitions: Definitions, home: str) -> None:
    for name in ("b", "a"):
        definitions.ask("POST", f"{home}/objects", 201, {"name": name})
    for query in ("limit=1", "marker=b", "sort_key=nothing", "visibility=shared"):
        listed = definitions.ask("GET", f"{home}/objects?{query}", 200)
        assert {each["name"] for each in listed["objects"]} == {"a", "b"}
        assert listed["schema"] == "v2/schemas/metadefs/objects"
    for query in ("limit=0", "limit=x", "sort_dir=up", "visibility=all"):
        definitions.ask("GET", f"{home}/objects?{query}", 400)


def test_tags_one_by_one(definitions: Definitions, home: str) -> None:
    made = definitions.ask("POST", f"{home}/tags/one", 201)
    assert without_times(made) == {"name": "one"}
    assert definitions.ask("GET", f"{home}/tags/one", 200) == made
    definitions.ask("POST", f"{home}/tags/one", 409)
    definitions.ask("POST", f"{home}/tags/{'t' * 81}", 400)
    definitions.ask("POST", f"{home}/tags/two", 400, {"a": "body"})
    definitions.ask("PUT", f"{home}/tags/one", 200, {"name": "ONE"})
    assert definitions.ask("GET", f"{home}/tags", 200) == {"tags": [{"name": "ONE"}]}
    definitions.ask("PUT", f"{home}/tags/ONE", 403, {"name": "x", "updated_at": "x"})
    definitions.ask("DELETE", f"{home}/tags/ONE", 204)
    definitions.ask("GET", f"{home}/tags/ONE", 404)


def test_many_tags_replace_all_or_are_added(definitions: Definitions, home: str) -> None:
    def names(query: str = "sort_key=name&sort_dir=asc") -> list[str]:
        return [tag["name"] for tag in definitions.ask("GET", f"{home}/tags?{query}", 200)["tags"]]

    def tags(*wanted: str) -> dict[str, Any]:
        return {"tags": [{"name": name} for name in wanted]}

    append = {"X-Openstack-Append": "True"}
    assert definitions.ask("POST", f"{home}/tags", 201, tags("b", "a")) == tags("b", "a")
    assert names() == ["a", "b"]
    definitions.ask("POST", f"{home}/tags", 201, tags("c", "d"), headers=append)
    assert names() == ["a", "b", "c", "d"]
    definitions.ask("POST", f"{home}/tags", 409, tags("e", "a"), headers=append)
    definitions.ask("POST", f"{home}/tags", 409, tags("e", "e"))
    definitions.ask("POST", f"{home}/tags", 201, tags())
    assert names("sort_key=name&sort_dir=asc&limit=2") == ["a", "b"]
    assert names("sort_key=name&sort_dir=asc&limit=2&marker=b") == ["c", "d"]
    assert names() == ["a", "b", "c", "d"]
    definitions.ask("POST", f"{home}/tags", 201, tags("z"))
    assert names("") == ["z"]


@pytest.mark.parametrize(
    "body",
    [{"tags": ["a"]}, {"tags": [{"name": "a", "b": 1}]}, {"tags": [], "b": 1}]
    + [pytest.param(body, marks=pytest.mark.better_than_glance) for body in ({}, [], {"tags": [{"name": "t" * 81}]})],
)
def test_what_many_tags_cannot_be(definitions: Definitions, home: str, body: Any) -> None:
    """Glance answers 500 to the last three."""
    definitions.ask("POST", f"{home}/tags", 400, body)


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "sort_dir=up", "visibility=all"])
def test_parameters_of_tags(definitions: Definitions, home: str, query: str) -> None:
    definitions.ask("GET", f"{home}/tags?{query}", 400)
    definitions.ask("GET", f"{home}/tags?marker=nothing", 404)


def test_resource_types_are_known_from_their_first_association(definitions: Definitions, home: str) -> None:
    kind = f"OS::Test::{unused()}"
    definitions.ask("POST", f"{home}/resource_types", 201, {"name": kind})
    definitions.ask("DELETE", f"{home}/resource_types/{kind}", 204)
    known = definitions.ask("GET", "/v2/metadefs/resource_types", 200)["resource_types"]
    assert [without_times(each) for each in known if each["name"] == kind] == [{"name": kind}]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""), ("DELETE", ""), ("GET", "/properties"), ("GET", "/resource_types"), ("GET", "/objects/x"),
        ("GET", "/tags/x"), ("DELETE", "/objects/x"), ("DELETE", "/tags/x"), ("DELETE", "/resource_types/x"),
        ("POST", "/tags/x"),
    ],
)  # fmt: skip
def test_calls_that_take_no_body(definitions: Definitions, home: str, method: str, path: str) -> None:
    definitions.ask(method, home + path, 400, content=b"{}")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v2/metadefs/resource_types", "GET"),
        (PATH, "GET, POST"),
        (f"{PATH}/x", "DELETE, GET, PUT"),
        (f"{PATH}/x/resource_types", "GET, POST"),
        (f"{PATH}/x/resource_types/y", "DELETE"),
        (f"{PATH}/x/objects", "DELETE, GET, POST"),
        (f"{PATH}/x/properties/y", "DELETE, GET, PUT"),
        (f"{PATH}/x/tags/y", "DELETE, GET, POST, PUT"),
        ("/v2/schemas/metadefs/object", "GET"),
    ],
)
def test_methods(api: Api, path: str, allowed: str) -> None:
    response = api.request("PATCH", path, json={})
    assert response.status_code == 405
    assert sorted(response.headers["Allow"].split(", ")) == allowed.split(", ")


# --- schemas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "title", "required"),
    [
        ("namespace", "namespace", ["namespace"]),
        ("object", "object", ["name"]),
        ("property", "property", ["type", "title", "name"]),
        ("resource_type", "resource_type_association", ["name"]),
        ("tag", "tag", ["name"]),
    ],
)
def test_schemas_of_one(api: Api, name: str, title: str, required: list[str]) -> None:
    schema = api.get(f"/v2/schemas/metadefs/{name}").json()
    assert (schema["name"], schema["required"], schema["additionalProperties"]) == (title, required, False)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("namespaces", "namespaces"),
        ("objects", "objects"),
        ("resource_types", "resource_type_associations"),
        ("tags", "tags"),
    ],
)
def test_schemas_of_many(api: Api, name: str, title: str) -> None:
    schema = api.get(f"/v2/schemas/metadefs/{name}").json()
    one = api.get(f"/v2/schemas/metadefs/{name[:-1]}").json()
    assert schema["name"] == title
    assert schema.get("definitions") == one.pop("definitions", None)
    assert schema["properties"][title] == {"type": "array", "items": one}
    assert [link["rel"] for link in schema["links"]] == ["first", "next", "describedby"]


def test_the_schema_of_properties_is_one_of_names(api: Api) -> None:
    schema = api.get("/v2/schemas/metadefs/properties").json()
    inner = schema["properties"]["properties"]
    assert inner["type"] == "object"
    assert inner["additionalProperties"]["required"] == ["type", "title"]
    assert schema["definitions"]["stringArray"]["minItems"] == 1


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def owned(user: Callable[[str], Api]) -> Iterator[dict[str, str]]:
    """Namespaces of alice's project, one private and one public, made by the admin."""
    admin = Definitions(user("admin"))
    paths = {}
    for visibility in ("private", "public"):
        paths[visibility] = admin.namespace(
            owner="a" * 32, visibility=visibility, objects=[{"name": "a"}], properties={"a": TEXT},
            tags=[{"name": "a"}], resource_type_associations=[{"name": "OS::Test::Thing"}],
        )  # fmt: skip
    yield paths
    for path in paths.values():
        admin.remove(path)


READS = ("", "/objects", "/objects/a", "/properties", "/properties/a", "/tags", "/tags/a", "/resource_types")
WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "", {"namespace": "x"}),
    ("DELETE", "", None),
    ("DELETE", "/objects", None),
    ("DELETE", "/properties", None),
    ("DELETE", "/tags", None),
    ("POST", "/objects", {"name": "b"}),
    ("PUT", "/objects/a", {"name": "b"}),
    ("DELETE", "/objects/a", None),
    ("DELETE", "/objects/nothing", None),
    ("POST", "/properties", {"name": "b", **TEXT}),
    ("PUT", "/properties/a", {"name": "b", **TEXT}),
    ("DELETE", "/properties/a", None),
    ("POST", "/tags", {"tags": [{"name": "b"}]}),
    ("POST", "/tags/b", None),
    ("PUT", "/tags/a", {"name": "b"}),
    ("DELETE", "/tags/a", None),
    ("POST", "/resource_types", {"name": "b"}),
    ("DELETE", "/resource_types/OS::Test::Thing", None),
]


@pytest.mark.parametrize(
    ("who", "visibility", "read", "write"),
    [
        ("alice", "private", 200, 403),
        ("alice", "public", 200, 403),
        ("carol", "private", 200, 403),
        ("bob", "private", 404, 404),
        ("bob", "public", 200, 403),
    ],
)
def test_only_admins_write_and_the_owner_reads_what_is_private(
    user: Callable[[str], Api], owned: dict[str, str], who: str, visibility: str, read: int, write: int
) -> None:
    definitions = Definitions(user(who))
    for path in READS:
        definitions.ask("GET", owned[visibility] + path, read)
    for method, path, body in WRITES:
        definitions.ask(method, owned[visibility] + path, write, body)


def test_lists_hold_what_the_caller_may_see(user: Callable[[str], Api], owned: dict[str, str]) -> None:
    private, public = name_of(owned["private"]), name_of(owned["public"])
    for who, expected in (("admin", {private, public}), ("alice", {private, public}), ("bob", {public})):
        listed = Definitions(user(who)).ask("GET", f"{PATH}?resource_types=OS::Test::Thing", 200)
        assert {each["namespace"] for each in listed["namespaces"]} == expected
    Definitions(user("bob")).ask("GET", f"{PATH}?marker={private}", 403)
    for who in ("bob", "carol"):
        Definitions(user(who)).ask("POST", PATH, 403, {"namespace": "x"})
        Definitions(user(who)).ask("GET", "/v2/metadefs/resource_types", 200)


def test_the_owner_is_the_callers_project(user: Callable[[str], Api]) -> None:
    admin = Definitions(user("admin"))
    name = f"test-{unused()}"
    assert admin.ask("POST", PATH, 201, {"namespace": name})["owner"] == "c" * 32
    admin.ask("PUT", f"{PATH}/{name}", 200, {"namespace": name, "owner": "b" * 32})
    assert admin.ask("PUT", f"{PATH}/{name}", 200, {"namespace": name})["owner"] == "c" * 32
    admin.remove(f"{PATH}/{name}")
