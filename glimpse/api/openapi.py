"""The API as an OpenAPI 3.1 document, made from the list of URLs and the schemas that the service validates with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from glimpse.api.bodies import BODIES
from glimpse.api.routes import ROUTES, Route
from glimpse.domain import patch

Document = dict[str, Any]

PATH = "/openapi.json"
VERSION = "3.1.0"

_SUCCESS = {"GET": 200, "PATCH": 200, "POST": 201, "PUT": 200, "DELETE": 204}
_OCTETS = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_POINTER = {"type": "string", "pattern": "^/.+"}
_PATCHES = {
    patch.MEDIA_V21: {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"op": {"enum": list(patch.OPERATIONS)}, "path": _POINTER, "value": {}},
            "required": ["op", "path"],
        },
    },
    patch.MEDIA_V20: {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {**dict.fromkeys(patch.OPERATIONS, _POINTER), "value": {}},
            "oneOf": [{"required": [name]} for name in patch.OPERATIONS],
        },
    },
}
_ERROR = {
    "type": "object",
    "properties": {"code": {"type": "string"}, "title": {"type": "string"}, "message": {"type": "string"}},
}
_IDENTITIES = {
    "keystone": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "http_basic": {"type": "http", "scheme": "basic"},
}


def document(base: str, flavor: str, schemas: Mapping[str, Document], routes: Iterable[Route] = ROUTES) -> Document:
    """The whole description. `base` is where the service is, `schemas` what it publishes, by name."""
    paths: Document = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    components: Document = {
        "schemas": {_component(name): _resolved(name, schema) for name, schema in {**schemas, **BODIES}.items()},
        "responses": {
            "refused": {
                "description": "The call cannot be answered as it was asked; the text says why.",
                "content": {"application/json": {"schema": _ERROR}, "text/html": {}, "text/plain": {}},
            }
        },
    }
    whole: Document = {
        "openapi": VERSION,
        "info": {
            "title": "Image service",
            "version": "v2",
            "description": "Disk images of virtual machines: found, described, shared, served.",
        },
        "servers": [{"url": base}],
        "paths": paths,
        "components": components,
    }
    if identity := _IDENTITIES.get(flavor):
        components["securitySchemes"] = {flavor: identity}
        whole["security"] = [{flavor: []}]
    return whole


def _operation(route: Route) -> Document:
    operation: Document = {
        "summary": route.about,
        "operationId": _operation_id(route),
        "tags": [_tag(route.path)],
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
              for name in re.findall(r"\{(\w+)\}", route.path)),
            *({"name": name, "in": "query", "schema": dict(schema)} for name, schema in route.query.items()),
        ],
        "responses": {
            str(route.success or _SUCCESS[route.method]): _success(route),
            **{str(status): {"description": why} for status, why in route.also.items()},
            "4XX": {"$ref": "#/components/responses/refused"},
        },
        "x-since": route.since,
    }  # fmt: skip
    if route.policy:
        operation["x-policy"] = route.policy
    if body := _request_body(route):
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _request_body(route: Route) -> Document | None:
    if route.method == "PATCH":
        return {media: {"schema": schema} for media, schema in _PATCHES.items()}
    if route.schema is not None:
        return {"application/json": {"schema": _reference(route.schema)}}
    return dict(_OCTETS) if route.method == "PUT" and route.path.endswith(("/file", "/stage")) else None


def _success(route: Route) -> Document:
    answer: Document = {"description": route.about or "Done"}
    if route.answer is not None:
        answer["content"] = {"application/json": {"schema": _reference(route.answer)}}
    elif route.method == "GET":
        answer["content"] = dict(_OCTETS)
    return answer


def _operation_id(route: Route) -> str:
    """Stable, and unique by what it is made of: `get_v2_images_image_id`."""
    return re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}")


def _tag(path: str) -> str:
    return path.split("/")[2]


def _component(name: str) -> str:
    return name.replace("/", ".")


def _reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{_component(name)}"}


def _resolved(name: str, schema: Any) -> Any:
    """The schema with its references to own definitions leading to where it now stands."""
    if isinstance(schema, Mapping):
        return {
            key: value.replace("#/definitions/", f"#/components/schemas/{_component(name)}/definitions/")
            if key == "$ref"
            else _resolved(name, value)
            for key, value in schema.items()
        }
    return [_resolved(name, item) for item in schema] if isinstance(schema, list) else schema
