"""The list of URLs. Routing, 405 answers and the tests that walk every URL come from this table alone.

A URL gets its row when it is built; what has no row is 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from glimpse.api.image_data import ImageDataCalls
from glimpse.api.image_parts import ImagePartCalls
from glimpse.api.images import ImageCalls
from glimpse.api.info import InfoCalls
from glimpse.api.operator import OperatorCalls
from glimpse.api.wire import Reply, Request
from glimpse.domain import part_schemas
from glimpse.errors import MethodNotAllowed, NotFound


@dataclass(frozen=True)
class Calls:
    """Everything that has handlers."""

    images: ImageCalls
    image_data: ImageDataCalls
    image_parts: ImagePartCalls
    info: InfoCalls
    operator: OperatorCalls


RecordCall = Callable[[Request], Reply]
DataCall = Callable[[Request, web.BaseRequest], Awaitable[Reply | web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one URL.

    `record` is a plain function that runs in a record thread, `data` a coroutine that may touch bytes; a row has one of
    them. `policy` is the rule that decides, "" where every caller may. `since` is the minor version that brought the
    call, `schema` names what a JSON body has to match, `takes_body` is false where a body is refused.
    """

    method: str
    path: str
    policy: str
    since: str
    record: Callable[[Calls], RecordCall] | None = None
    data: Callable[[Calls], DataCall] | None = None
    schema: str | None = None
    takes_body: bool = False


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/images", "get_images", "2.0", lambda calls: calls.images.list, takes_body=True),
    Route("POST", "/v2/images", "add_image", "2.0", lambda calls: calls.images.create, schema="image",
          takes_body=True),
    Route("GET", "/v2/images/{image_id}", "get_image", "2.0", lambda calls: calls.images.show),
    Route("PATCH", "/v2/images/{image_id}", "modify_image", "2.0", lambda calls: calls.images.update,
          schema="image", takes_body=True),
    Route("DELETE", "/v2/images/{image_id}", "delete_image", "2.0", data=lambda calls: calls.image_data.delete),
    Route("GET", "/v2/images/{image_id}/file", "download_image", "2.0",
          data=lambda calls: calls.image_data.download),
    Route("PUT", "/v2/images/{image_id}/file", "upload_image", "2.0", data=lambda calls: calls.image_data.upload,
          takes_body=True),
    Route("POST", "/v2/images/{image_id}/actions/deactivate", "deactivate", "2.3",
          lambda calls: calls.image_parts.deactivate),
    Route("POST", "/v2/images/{image_id}/actions/reactivate", "reactivate", "2.3",
          lambda calls: calls.image_parts.reactivate),
    Route("PUT", "/v2/images/{image_id}/tags/{tag}", "modify_image", "2.0", lambda calls: calls.image_parts.add_tag),
    Route("DELETE", "/v2/images/{image_id}/tags/{tag}", "modify_image", "2.0",
          lambda calls: calls.image_parts.remove_tag),
    Route("GET", "/v2/images/{image_id}/members", "get_members", "2.1", lambda calls: calls.image_parts.members),
    Route("POST", "/v2/images/{image_id}/members", "add_member", "2.1", lambda calls: calls.image_parts.add_member,
          takes_body=True),
    Route("GET", "/v2/images/{image_id}/members/{member_id}", "get_member", "2.1",
          lambda calls: calls.image_parts.member),
    Route("PUT", "/v2/images/{image_id}/members/{member_id}", "modify_member", "2.1",
          lambda calls: calls.image_parts.change_member, takes_body=True),
    Route("DELETE", "/v2/images/{image_id}/members/{member_id}", "delete_member", "2.1",
          lambda calls: calls.image_parts.remove_member),
    Route("GET", "/v2/info/import", "", "2.6", lambda calls: calls.info.import_methods),
    Route("GET", "/v2/info/stores", "", "2.8", lambda calls: calls.info.list_stores),
    Route("GET", "/v2/info/stores/detail", "stores_info_detail", "2.13",
          lambda calls: calls.info.list_stores_in_detail),
    Route("GET", "/v2/schemas/image", "", "2.0", lambda calls: calls.operator.image_schema),
    Route("GET", "/v2/schemas/images", "", "2.0", lambda calls: calls.operator.images_schema),
    Route("GET", "/v2/schemas/member", "", "2.1", lambda calls: calls.operator.publish(part_schemas.MEMBER)),
    Route("GET", "/v2/schemas/members", "", "2.1", lambda calls: calls.operator.publish(part_schemas.MEMBERS)),
    Route("GET", "/v2/schemas/task", "", "2.2", lambda calls: calls.operator.publish(part_schemas.TASK)),
    Route("GET", "/v2/schemas/tasks", "", "2.2", lambda calls: calls.operator.publish(part_schemas.TASKS)),
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
        raise MethodNotAllowed(f"The method {method} is not allowed for this resource.", {"Allow": allowed})
    return route
