"""Metadata definitions on the wire (API reference, Metadata definitions). One handler for each verb, for all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from multidict import MultiMapping
from oslo_utils import strutils

from glimpse.api import parameters
from glimpse.api.wire import NO_CONTENT, Reply, Request, json_reply
from glimpse.db.metadefs import Filter, Page
from glimpse.domain.lifecycle import spelled
from glimpse.domain.metadef import ASSOCIATION, NAMESPACE, OBJECT, PROPERTY, TAG, Definition, Kind
from glimpse.errors import BadRequest
from glimpse.metadefs.manage import Metadefs, Parts
from glimpse.settings import Settings

_PATH = "/v2/metadefs/namespaces"
_SORT_KEYS = (
    "namespace", "display_name", "description", "visibility", "protected", "owner", "created_at", "updated_at", "id",
)  # fmt: skip
_TAG_SORT_KEYS = ("name", "created_at", "updated_at", "id")
_VISIBILITIES = ("public", "private")
_VISIBILITIES_IN_LISTS = (*_VISIBILITIES, "shared")
_DIRECTIONS = ("asc", "desc")

# What lists understand, as JSON Schemas.
_TEXT = {"type": "string"}
_SORT_DIR = {"type": "string", "enum": list(_DIRECTIONS)}
RESOURCE_TYPE_PARAMETER: Mapping[str, Mapping[str, Any]] = {
    "resource_type": {"type": "string", "description": "show names as they are on resources of that type"},
}
NAMESPACE_LIST_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 0},
    "marker": _TEXT,
    "sort_key": {"type": "string", "enum": list(_SORT_KEYS)},
    "sort_dir": _SORT_DIR,
    "visibility": {"type": "string", "enum": list(_VISIBILITIES)},
    "resource_types": {"type": "string", "description": "names with commas between; one of them is enough"},
}
TAG_LIST_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 0},
    "marker": _TEXT,
    "sort_key": {"type": "string", "enum": list(_TAG_SORT_KEYS)},
    "sort_dir": _SORT_DIR,
    "visibility": {"type": "string", "enum": list(_VISIBILITIES_IN_LISTS)},
}
OBJECT_LIST_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    **TAG_LIST_PARAMETERS,
    "limit": {"type": "integer", "minimum": 1},
}


@dataclass(frozen=True)
class MetadefCalls:
    """The handlers of /v2/metadefs."""

    settings: Settings
    metadefs: Metadefs

    def namespaces(self, request: Request) -> Reply:
        """GET /v2/metadefs/namespaces"""
        query = request.query
        parameters.check_storable(query)
        types = query.get("resource_types")
        wanted = Filter(
            parameters.one_of(query, "visibility", _VISIBILITIES), None if types is None else types.split(",")
        )
        page = _page(query, parameters.limit(query, self.settings), _SORT_KEYS)
        found = self.metadefs.find(request.context, wanted, page)
        document: dict[str, Any] = {
            "namespaces": [
                _namespace(home, {ASSOCIATION: associations} if associations else {}) for home, associations in found
            ],
            "first": parameters.page_link(_PATH, query),
            "schema": "/v2/schemas/metadefs/namespaces",
        }
        if found and len(found) == page.limit:
            document["next"] = parameters.page_link(_PATH, query, found[-1][0].name)
        return json_reply(document)

    def create_namespace(self, request: Request) -> Reply:
        """POST /v2/metadefs/namespaces"""
        home, parts = self.metadefs.create_namespace(request.context, request.json())
        return json_reply(
            _namespace(home, parts, plain=True),
            201,
            {"Location": f"{request.base}{_PATH}/{quote(home.name, safe=':')}"},
        )

    def show_namespace(self, request: Request) -> Reply:
        """GET /v2/metadefs/namespaces/{namespace}"""
        parameters.one_of(request.query, "visibility", _VISIBILITIES)
        home, parts = self.metadefs.show_whole(
            request.context, request.parts["namespace"], request.query.get("resource_type")
        )
        return json_reply(_namespace(home, {kind: found for kind, found in parts.items() if found}))

    def resource_types(self, request: Request) -> Reply:
        """GET /v2/metadefs/resource_types"""
        found = self.metadefs.resource_types(request.context)
        return json_reply({"resource_types": [{"name": each.name, **_times(each)} for each in found]})

    def list(self, kind: Kind, request: Request) -> Reply:
        """GET the objects, properties or resource types of a namespace"""
        home, found = self.metadefs.list_in(kind, request.context, request.parts["namespace"])
        return json_reply({kind.plural: _listed(kind, home, found)})

    def list_objects(self, request: Request) -> Reply:
        """GET …/objects: parameters of pages are checked, but the list is always whole, as with Glance"""
        _check_filters(request.query)
        if parameters.integer(request.query.get("limit", "1"), "limit") < 1:
            raise BadRequest("limit must be 1 or more")
        home, found = self.metadefs.list_in(OBJECT, request.context, request.parts["namespace"])
        return json_reply({"objects": _listed(OBJECT, home, found), "schema": "v2/schemas/metadefs/objects"})

    def list_tags(self, request: Request) -> Reply:
        """GET …/tags"""
        _check_filters(request.query)
        limit = parameters.integer(request.query["limit"], "limit") if request.query.get("limit") else None
        if limit is not None and limit < 0:
            raise BadRequest("limit must not be negative")
        page = _page(request.query, limit, _TAG_SORT_KEYS)
        home, found = self.metadefs.list_in(TAG, request.context, request.parts["namespace"], page)
        return json_reply({"tags": _listed(TAG, home, found)})

    def add_tags(self, request: Request) -> Reply:
        """POST …/tags: instead of those that are there, or beside them with X-Openstack-Append"""
        append = strutils.bool_from_string(request.headers.get("X-Openstack-Append", ""))
        home, made = self.metadefs.add_tags(request.context, request.parts["namespace"], request.json(), append)
        return json_reply({"tags": _listed(TAG, home, made)}, 201)

    def add_tag(self, request: Request) -> Reply:
        """POST …/tags/{name}, which has no body"""
        body = {"name": request.parts["name"]}
        home, made = self.metadefs.create(TAG, request.context, request.parts["namespace"], body)
        return json_reply(_document(TAG, home, made), 201)

    def create(self, kind: Kind, request: Request) -> Reply:
        """POST an object, a property or an association with a resource type"""
        home, made = self.metadefs.create(kind, request.context, request.parts["namespace"], request.json())
        return json_reply(_document(kind, home, made), 201)

    def show(self, kind: Kind, request: Request) -> Reply:
        """GET an object or a tag"""
        home, found = self.metadefs.show(kind, request.context, request.parts["namespace"], request.parts["name"])
        return json_reply(_document(kind, home, found))

    def show_property(self, request: Request) -> Reply:
        """GET …/properties/{name}; with ?resource_type the name is the one that it has there"""
        resource_type = request.query.get("resource_type")
        if not resource_type:
            return self.show(PROPERTY, request)
        home, found = self.metadefs.show_on_resource(
            request.context, request.parts["namespace"], request.parts["name"], resource_type
        )
        return json_reply(_document(PROPERTY, home, found))

    def change(self, kind: Kind, request: Request) -> Reply:
        """PUT a namespace, an object, a property or a tag"""
        parts = request.parts
        home, changed = self.metadefs.change(
            kind, request.context, parts["namespace"], parts.get("name"), request.json()
        )
        return json_reply(_document(kind, home, changed))

    def delete(self, kind: Kind, request: Request) -> Reply:
        """DELETE a namespace, or one definition in it"""
        self.metadefs.delete(kind, request.context, request.parts["namespace"], request.parts.get("name"))
        return NO_CONTENT

    def delete_all(self, kind: Kind, request: Request) -> Reply:
        """DELETE all objects, properties or tags of a namespace"""
        self.metadefs.delete_all(kind, request.context, request.parts["namespace"])
        return NO_CONTENT


def _namespace(home: Definition, parts: Parts, plain: bool = False) -> dict[str, Any]:
    """A namespace with what it holds."""
    inside = {kind.plural: _listed(kind, home, found, plain) for kind, found in parts.items()}
    return _document(NAMESPACE, home, home) | inside


def _listed(kind: Kind, home: Definition, found: list[Definition], plain: bool = False) -> Any:
    """The definitions of one kind: properties by their names, all others as a list."""
    if kind is PROPERTY:
        return {each.name: each.values for each in found}
    return [_document(kind, home, each, plain or kind is TAG) for each in found]


def _document(kind: Kind, home: Definition, found: Definition, plain: bool = False) -> dict[str, Any]:
    """A definition as clients get it; `plain`: as they sent it, without times and links."""
    document = {kind.key: found.name, **found.values, kind.key: found.name}
    if kind.dated and not plain:
        document |= _times(found)
    if kind.linked and not plain:
        inside = "" if kind is NAMESPACE else f"{home.name}/{kind.plural}/"
        document["self"] = f"{_PATH}/{inside}{found.name}"
        document["schema"] = f"/v2/schemas/metadefs/{kind.noun}"
    return document


def _times(found: Definition) -> dict[str, str]:
    """What was never changed has no updated_at."""
    times = {"created_at": found.created_at, "updated_at": found.updated_at}
    return {name: spelled(time) for name, time in times.items() if time is not None}


def _page(query: MultiMapping[str], limit: int | None, sort_keys: tuple[str, ...]) -> Page:
    sort_key = parameters.one_of(query, "sort_key", sort_keys) or "created_at"
    ascending = parameters.one_of(query, "sort_dir", _DIRECTIONS) == "asc"
    return Page(sort_key, ascending, limit, parameters.one(query, "marker"))


def _check_filters(query: MultiMapping[str]) -> None:
    """Parameters that objects and tags accept without heeding them."""
    parameters.one_of(query, "visibility", _VISIBILITIES_IN_LISTS)
    parameters.one_of(query, "sort_dir", _DIRECTIONS)
