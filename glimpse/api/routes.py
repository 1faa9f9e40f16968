"""The list of URLs. Routing, 405 answers and the tests that walk every URL come from this table alone.

A URL gets its row when it is built; what has no row is 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from glimpse.api.cache import CacheCalls
from glimpse.api.image_data import ImageDataCalls
from glimpse.api.image_list import LIST_PARAMETERS
from glimpse.api.image_parts import ImagePartCalls
from glimpse.api.images import ImageCalls
from glimpse.api.imports import ImportCalls
from glimpse.api.info import InfoCalls
from glimpse.api.locations import LocationCalls
from glimpse.api.metadefs import (
    NAMESPACE_LIST_PARAMETERS,
    OBJECT_LIST_PARAMETERS,
    RESOURCE_TYPE_PARAMETER,
    TAG_LIST_PARAMETERS,
    MetadefCalls,
)
from glimpse.api.operator import SCHEMAS, OperatorCalls
from glimpse.api.tasks import TASK_LIST_PARAMETERS, TaskCalls
from glimpse.api.wire import Reply, Request
from glimpse.domain.metadef import ASSOCIATION, NAMESPACE, OBJECT, PROPERTY, RESOURCE_TYPE, TAG, Kind
from glimpse.errors import MethodNotAllowed, NotFound


@dataclass(frozen=True)
class Calls:
    """Everything that has handlers."""

    cache: CacheCalls
    images: ImageCalls
    image_data: ImageDataCalls
    image_parts: ImagePartCalls
    imports: ImportCalls
    info: InfoCalls
    locations: LocationCalls
    metadefs: MetadefCalls
    operator: OperatorCalls
    tasks: TaskCalls


RecordCall = Callable[[Request], Reply]
DataCall = Callable[[Request, web.BaseRequest], Awaitable[Reply | web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one URL.

    `record` is a plain function that runs in a record thread, `data` a coroutine that may touch bytes; a row has one of
    them. `policy` is the rule that decides, "" where every caller may. `since` is the minor version that brought the
    call, `takes_body` is false where a body is refused. `limited` rows may ask Keystone for a project's limits, and so
    keep off the record threads.

    The rest is for those who read `/openapi.json`: `about` says what the call is for, `query` has the JSON Schemas of
    its query parameters, `schema` names the one of its JSON body (of what is patched, for PATCH) and `answer` that of
    what comes back, both among the published ones or in `bodies`. `success` is its status when that is not the usual
    one of the method, `also` has others, with what they mean.
    """

    method: str
    path: str
    policy: str
    since: str
    record: Callable[[Calls], RecordCall] | None = None
    data: Callable[[Calls], DataCall] | None = None
    takes_body: bool = False
    limited: bool = False
    about: str = ""
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schema: str | None = None
    answer: str | None = None
    success: int | None = None
    also: Mapping[int, str] = field(default_factory=dict)


def _schema(name: str) -> Callable[[Calls], RecordCall]:
    return lambda calls: calls.operator.schema(name)


def _on(verb: Callable[[MetadefCalls, Kind, Request], Reply], kind: Kind) -> Callable[[Calls], RecordCall]:
    """What is done in the same way to every kind of metadata definitions."""
    return lambda calls: lambda request: verb(calls.metadefs, kind, request)


_NAMESPACES = "/v2/metadefs/namespaces"
_NAMESPACE = "/v2/metadefs/namespaces/{namespace}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/images", "get_images", "2.0", lambda calls: calls.images.list, takes_body=True,
          about="List images", query=LIST_PARAMETERS, answer="images"),
    Route("POST", "/v2/images", "add_image", "2.0", lambda calls: calls.images.create, takes_body=True,
          limited=True, about="Register an image", schema="image", answer="image"),
    Route("GET", "/v2/images/{image_id}", "get_image", "2.0", lambda calls: calls.images.show,
          about="Show an image", answer="image"),
    Route("PATCH", "/v2/images/{image_id}", "modify_image", "2.0", data=lambda calls: calls.locations.update,
          takes_body=True, about="Change an image", schema="image", answer="image"),
    Route("DELETE", "/v2/images/{image_id}", "delete_image", "2.0", data=lambda calls: calls.image_data.delete,
          about="Delete an image and its data"),
    Route("GET", "/v2/images/{image_id}/file", "download_image", "2.0",
          data=lambda calls: calls.image_data.download, about="Download an image's data",
          query={"prefer": {"type": "string", "description": "ids of stores with commas between"}},
          also={204: "The image has no data", 206: "The part that the header Range names",
                302: "Where the store has the data, for clients that send Prefer: redirect"}),
    Route("PUT", "/v2/images/{image_id}/file", "upload_image", "2.0", data=lambda calls: calls.image_data.upload,
          takes_body=True, about="Upload an image's data", success=204),
    Route("PUT", "/v2/images/{image_id}/stage", "modify_image", "2.6", data=lambda calls: calls.imports.stage,
          takes_body=True, about="Stage an image's data for an import", success=204),
    Route("POST", "/v2/images/{image_id}/import", "modify_image", "2.6", data=lambda calls: calls.imports.start,
          takes_body=True, about="Import an image", schema="image_import", success=202),
    Route("POST", "/v2/images/{image_id}/actions/deactivate", "deactivate", "2.3",
          data=lambda calls: calls.image_parts.deactivate, about="Withhold the data from all but admins", success=204),
    Route("POST", "/v2/images/{image_id}/actions/reactivate", "reactivate", "2.3",
          data=lambda calls: calls.image_parts.reactivate, about="Serve an image's data again", success=204),
    Route("PUT", "/v2/images/{image_id}/tags/{tag}", "modify_image", "2.0", lambda calls: calls.image_parts.add_tag,
          about="Add a tag to an image", success=204),
    Route("DELETE", "/v2/images/{image_id}/tags/{tag}", "modify_image", "2.0",
          lambda calls: calls.image_parts.remove_tag, about="Remove a tag from an image"),
    Route("GET", "/v2/images/{image_id}/members", "get_members", "2.1", lambda calls: calls.image_parts.members,
          about="List the projects that an image is shared with", answer="members"),
    Route("POST", "/v2/images/{image_id}/members", "add_member", "2.1", data=lambda calls: calls.image_parts.add_member,
          takes_body=True, about="Share an image with a project", schema="new_member", answer="member", success=200),
    Route("GET", "/v2/images/{image_id}/members/{member_id}", "get_member", "2.1",
          lambda calls: calls.image_parts.member, about="Show how a project stands to a shared image", answer="member"),
    Route("PUT", "/v2/images/{image_id}/members/{member_id}", "modify_member", "2.1",
          lambda calls: calls.image_parts.change_member, takes_body=True, about="Accept or reject a shared image",
          schema="member_status", answer="member"),
    Route("DELETE", "/v2/images/{image_id}/members/{member_id}", "delete_member", "2.1",
          data=lambda calls: calls.image_parts.remove_member, about="Stop sharing an image with a project"),
    Route("GET", "/v2/images/{image_id}/locations", "fetch_image_location", "2.17",
          lambda calls: calls.locations.list, about="List the places of an image's data", answer="locations"),
    Route("POST", "/v2/images/{image_id}/locations", "add_image_location", "2.17",
          data=lambda calls: calls.locations.add, takes_body=True, about="Give an image a place where its data is",
          schema="new_location", success=202),
    Route("GET", "/v2/images/{image_id}/tasks", "get_image", "2.12", lambda calls: calls.locations.tasks,
          about="List the tasks of an image", answer="image_tasks"),
    Route("GET", "/v2/info/import", "", "2.6", lambda calls: calls.info.import_methods, about="List import methods",
          answer="import_methods"),
    Route("GET", "/v2/info/stores", "", "2.8", lambda calls: calls.info.list_stores, about="List stores",
          answer="stores"),
    Route("GET", "/v2/info/stores/detail", "stores_info_detail", "2.13",
          lambda calls: calls.info.list_stores_in_detail, about="List stores with their configuration",
          answer="stores_in_detail"),
    Route("GET", "/v2/info/usage", "", "2.15", lambda calls: calls.info.usage, limited=True,
          about="Show the usage and the limits of the caller's project", answer="usage"),
    Route("DELETE", "/v2/stores/{store_id}/{image_id}", "delete_image_location", "2.10",
          data=lambda calls: calls.locations.leave, about="Remove an image's data from one store"),
    Route("GET", "/v2/tasks", "tasks_api_access", "2.2", lambda calls: calls.tasks.list, takes_body=True,
          about="List tasks", query=TASK_LIST_PARAMETERS, answer="tasks"),
    Route("POST", "/v2/tasks", "tasks_api_access", "2.2", data=lambda calls: calls.tasks.add, takes_body=True,
          about="Begin a task: import an image", schema="new_task", answer="task"),
    Route("GET", "/v2/tasks/{task_id}", "tasks_api_access", "2.2", lambda calls: calls.tasks.show,
          about="Show a task", answer="task"),
    Route("DELETE", "/v2/tasks/{task_id}", "tasks_api_access", "2.2", lambda calls: calls.tasks.delete,
          about="Not possible: tasks go when their time is over", success=405),
    Route("GET", "/v2/cache", "cache_list", "2.14", lambda calls: calls.cache.state,
          about="List the images in this node's cache, and those that are to be fetched into it", answer="cache"),
    Route("DELETE", "/v2/cache", "cache_delete", "2.14", lambda calls: calls.cache.clear,
          about="Empty the cache and its queue, or one of them (header x-image-cache-clear-target: cache, queue)"),
    Route("POST", "/v2/cache/clean", "cache_clean", "2.18", lambda calls: calls.cache.clean, success=200,
          about="Remove copies that are invalid, or were not filled to their end and stall"),
    Route("POST", "/v2/cache/prune", "cache_prune", "2.18", lambda calls: calls.cache.prune, success=200,
          about="Remove copies that nobody has asked for the longest, until the cache is no larger than it may be",
          answer="pruned"),
    Route("PUT", "/v2/cache/{image_id}", "cache_image", "2.14", data=lambda calls: calls.cache.queue,
          about="Fetch an image into the cache", success=202),
    Route("DELETE", "/v2/cache/{image_id}", "cache_delete", "2.14", lambda calls: calls.cache.remove,
          about="Remove an image from the cache and its queue"),
    Route("GET", "/v2/cache/nodes/{image_id}", "list_cached_nodes", "2.18", lambda calls: calls.cache.nodes,
          about="List the nodes that hold a copy of an image", answer="nodes"),
    Route("GET", "/v2/cached_images", "manage_image_cache", "2.0", lambda calls: calls.cache.cached_images,
          about="List the images in the cache (older call, as all on cached_images and queued_images)",
          answer="cached_images"),
    Route("DELETE", "/v2/cached_images", "manage_image_cache", "2.0", lambda calls: calls.cache.drop_all,
          about="Empty the cache", answer="deleted", success=200),
    Route("DELETE", "/v2/cached_images/{image_id}", "manage_image_cache", "2.0", lambda calls: calls.cache.drop,
          about="Remove an image from the cache", answer="null", success=200),
    Route("GET", "/v2/queued_images", "manage_image_cache", "2.0", lambda calls: calls.cache.queued_images,
          about="List the images that are to be fetched into the cache", answer="queued_images"),
    Route("DELETE", "/v2/queued_images", "manage_image_cache", "2.0", lambda calls: calls.cache.unqueue_all,
          about="Fetch no image into the cache any more", answer="deleted", success=200),
    Route("PUT", "/v2/queued_images/{image_id}", "manage_image_cache", "2.0", lambda calls: calls.cache.queue_unseen,
          about="Fetch an image into the cache", answer="null", success=200),
    Route("DELETE", "/v2/queued_images/{image_id}", "manage_image_cache", "2.0", lambda calls: calls.cache.unqueue,
          about="Do not fetch an image into the cache any more", answer="null", success=200),
    *(Route("GET", f"/v2/schemas/{name}", "", since, _schema(name), about=f"Show the JSON Schema of {name}",
            answer="json_schema")
      for name, since in SCHEMAS.items()),
    Route("GET", "/v2/metadefs/resource_types", RESOURCE_TYPE.rules.list, "2.2",
          lambda calls: calls.metadefs.resource_types, about="List resource types", answer="resource_types"),
    Route("GET", _NAMESPACES, NAMESPACE.rules.list, "2.2", lambda calls: calls.metadefs.namespaces, takes_body=True,
          about="List namespaces", query=NAMESPACE_LIST_PARAMETERS, answer="metadefs/namespaces"),
    Route("POST", _NAMESPACES, NAMESPACE.rules.add, "2.2", lambda calls: calls.metadefs.create_namespace,
          takes_body=True, about="Create a namespace with what it holds", schema="metadefs/namespace",
          answer="metadefs/namespace"),
    Route("GET", _NAMESPACE, NAMESPACE.rules.show, "2.2", lambda calls: calls.metadefs.show_namespace,
          about="Show a namespace with what it holds", query=RESOURCE_TYPE_PARAMETER, answer="metadefs/namespace"),
    Route("PUT", _NAMESPACE, NAMESPACE.rules.change, "2.2", _on(MetadefCalls.change, NAMESPACE), takes_body=True,
          about="Change a namespace, but not what it holds", schema="metadefs/namespace", answer="metadefs/namespace"),
    Route("DELETE", _NAMESPACE, NAMESPACE.rules.remove, "2.2", _on(MetadefCalls.delete, NAMESPACE),
          about="Delete a namespace with what it holds"),
    Route("GET", f"{_NAMESPACE}/resource_types", ASSOCIATION.rules.list, "2.2", _on(MetadefCalls.list, ASSOCIATION),
          about="List the resource types of a namespace", answer="metadefs/resource_types"),
    Route("POST", f"{_NAMESPACE}/resource_types", ASSOCIATION.rules.add, "2.2", _on(MetadefCalls.create, ASSOCIATION),
          takes_body=True, about="Associate a namespace with a resource type", schema="metadefs/resource_type",
          answer="metadefs/resource_type"),
    Route("DELETE", f"{_NAMESPACE}/resource_types/{{name}}", ASSOCIATION.rules.remove, "2.2",
          _on(MetadefCalls.delete, ASSOCIATION), about="Part a namespace from a resource type"),
    Route("GET", f"{_NAMESPACE}/objects", OBJECT.rules.list, "2.2", lambda calls: calls.metadefs.list_objects,
          takes_body=True, about="List the objects of a namespace", query=OBJECT_LIST_PARAMETERS,
          answer="metadefs/objects"),
    Route("POST", f"{_NAMESPACE}/objects", OBJECT.rules.add, "2.2", _on(MetadefCalls.create, OBJECT), takes_body=True,
          about="Create an object", schema="metadefs/object", answer="metadefs/object"),
    Route("DELETE", f"{_NAMESPACE}/objects", NAMESPACE.rules.remove, "2.2", _on(MetadefCalls.delete_all, OBJECT),
          about="Delete all objects of a namespace"),
    Route("GET", f"{_NAMESPACE}/objects/{{name}}", OBJECT.rules.show, "2.2", _on(MetadefCalls.show, OBJECT),
          about="Show an object", answer="metadefs/object"),
    Route("PUT", f"{_NAMESPACE}/objects/{{name}}", OBJECT.rules.change, "2.2", _on(MetadefCalls.change, OBJECT),
          takes_body=True, about="Replace an object", schema="metadefs/object", answer="metadefs/object"),
    Route("DELETE", f"{_NAMESPACE}/objects/{{name}}", OBJECT.rules.remove, "2.2", _on(MetadefCalls.delete, OBJECT),
          about="Delete an object"),
    Route("GET", f"{_NAMESPACE}/properties", PROPERTY.rules.list, "2.2", _on(MetadefCalls.list, PROPERTY),
          about="List the properties of a namespace", answer="metadefs/properties"),
    Route("POST", f"{_NAMESPACE}/properties", PROPERTY.rules.add, "2.2", _on(MetadefCalls.create, PROPERTY),
          takes_body=True, about="Create a property", schema="metadefs/property", answer="metadefs/property"),
    Route("DELETE", f"{_NAMESPACE}/properties", NAMESPACE.rules.remove, "2.2", _on(MetadefCalls.delete_all, PROPERTY),
          about="Delete all properties of a namespace"),
    Route("GET", f"{_NAMESPACE}/properties/{{name}}", PROPERTY.rules.show, "2.2",
          lambda calls: calls.metadefs.show_property, takes_body=True, about="Show a property",
          query=RESOURCE_TYPE_PARAMETER, answer="metadefs/property"),
    Route("PUT", f"{_NAMESPACE}/properties/{{name}}", PROPERTY.rules.change, "2.2", _on(MetadefCalls.change, PROPERTY),
          takes_body=True, about="Replace a property", schema="metadefs/property", answer="metadefs/property"),
    Route("DELETE", f"{_NAMESPACE}/properties/{{name}}", PROPERTY.rules.remove, "2.2",
          _on(MetadefCalls.delete, PROPERTY), about="Delete a property"),
    Route("GET", f"{_NAMESPACE}/tags", TAG.rules.list, "2.2", lambda calls: calls.metadefs.list_tags, takes_body=True,
          about="List the tags of a namespace", query=TAG_LIST_PARAMETERS, answer="metadefs/tags"),
    Route("POST", f"{_NAMESPACE}/tags", TAG.rules.add_many, "2.2", lambda calls: calls.metadefs.add_tags,
          takes_body=True, about="Replace all tags of a namespace, or add many", schema="metadefs/tags",
          answer="metadefs/tags"),
    Route("DELETE", f"{_NAMESPACE}/tags", TAG.rules.remove_all, "2.2", _on(MetadefCalls.delete_all, TAG),
          about="Delete all tags of a namespace"),
    Route("GET", f"{_NAMESPACE}/tags/{{name}}", TAG.rules.show, "2.2", _on(MetadefCalls.show, TAG),
          about="Show a tag", answer="metadefs/tag"),
    Route("POST", f"{_NAMESPACE}/tags/{{name}}", TAG.rules.add, "2.2", lambda calls: calls.metadefs.add_tag,
          about="Add a tag to a namespace", answer="metadefs/tag"),
    Route("PUT", f"{_NAMESPACE}/tags/{{name}}", TAG.rules.change, "2.2", _on(MetadefCalls.change, TAG),
          takes_body=True, about="Rename a tag", schema="metadefs/tag", answer="metadefs/tag"),
    Route("DELETE", f"{_NAMESPACE}/tags/{{name}}", TAG.rules.remove, "2.2", _on(MetadefCalls.delete, TAG),
          about="Delete a tag"),
)  # fmt: skip


class Router:
    """Finds the row for a method and a path."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._by_shape: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in routes:
            self._by_shape.setdefault(tuple(route.path.split("/")), {})[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The row, and what stands in the place of its {names}. Raises `NotFound`, `MethodNotAllowed`."""
        parts = path.split("/")
        for shape, methods in self._by_shape.items():
            if len(shape) == len(parts):
                found = _match(shape, parts)
                if found is not None:
                    return _choose(methods, method), found
        raise NotFound("The resource could not be found.")


def _match(shape: tuple[str, ...], parts: list[str]) -> dict[str, str] | None:
    found = {}
    for wanted, part in zip(shape, parts, strict=True):
        if wanted.startswith("{"):
            if not part:
                return None
            found[wanted[1:-1]] = part
        elif wanted != part:
            return None
    return found


def _choose(methods: dict[str, Route], method: str) -> Route:
    route = methods.get(method)
    if route is None:
        allowed = ", ".join(sorted(methods))
        raise MethodNotAllowed(f"The method {method} has no meaning at this URL.", {"Allow": allowed})
    return route
