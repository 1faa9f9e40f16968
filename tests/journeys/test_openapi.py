"""The OpenAPI document, and requests made up from it: the service never fails (no 5xx) and answers as it says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from glimpse.api.routes import ROUTES, Route

from .client import PATCH_20, PATCH_21, Api

pytestmark = pytest.mark.better_than_glance  # which has no such document

schemathesis.serializer.alias([PATCH_20, PATCH_21], "application/json")
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
EXAMPLES = 25  # of each call
# Only where something can be wrong: a query or a body.
CASES = [(route, GenerationMode.POSITIVE) for route in ROUTES] + [
    (route, GenerationMode.NEGATIVE) for route in ROUTES if route.query or route.schema
]
KNOWN = random.Random(7)  # which requests go to things that exist


@pytest.fixture(scope="module")
def described(api: Api) -> Any:
    """The service as schemathesis reads it."""
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


@pytest.fixture(scope="module")
def existing(api: Api) -> Iterator[dict[str, list[str]]]:
    """Names that stand for something, by the parameter that takes them."""
    images = [api.active(b"abc", tags=["a"], x="1")["id"], api.create()["id"], api.create(visibility="public")["id"]]
    homes = [f"openapi-{number}" for number in range(4)]  # some requests delete theirs
    parts = {"objects": [{"name": "a"}], "properties": {"a": {"title": "A", "type": "string"}}, "tags": [{"name": "a"}]}
    for home in homes:
        api.request("POST", "/v2/metadefs/namespaces", json={"namespace": home, **parts})
    yield {"image_id": images, "tag": ["a"], "namespace": homes, "name": ["a"]}
    for image in images:
        api.raw_delete(image)
    for home in homes:
        api.request("DELETE", f"/v2/metadefs/namespaces/{home}")


def test_every_url_is_described(api: Api) -> None:
    document = api.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert listed == {(route.method, route.path) for route in ROUTES}
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert all(operation["summary"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)
    for route in ROUTES:
        for name in (route.schema, route.answer):
            assert name is None or name.replace("/", ".") in document["components"]["schemas"], route.path
        is_file = route.path.endswith(("/file", "/stage"))
        assert route.answer or is_file or route.method != "GET", route.path
        assert route.schema or is_file or not (route.takes_body and route.method in ("POST", "PUT")), route.path


def _name(part: Route | GenerationMode) -> str:
    return f"{part.method} {part.path}" if isinstance(part, Route) else part.value


@pytest.mark.server  # for its length: it needs none
@pytest.mark.parametrize(
    ("route", "mode"), CASES, ids=lambda part: getattr(part, "value", None) or f"{part.method} {part.path}"
)
def test_no_request_breaks_the_service(
    described: Any, api: Api, existing: dict[str, list[str]], route: Route, mode: GenerationMode
) -> None:
    operation = described[route.path][route.method]

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        for name in case.path_parameters or {}:
            if name in existing and KNOWN.random() < 0.7:
                case.path_parameters[name] = KNOWN.choice(existing[name])
        if (route.method, route.path) == ("DELETE", "/v2/images/{image_id}"):
            case.path_parameters["image_id"] = api.create()["id"]
        case.call_and_validate(checks=CHECKS)

    run()
