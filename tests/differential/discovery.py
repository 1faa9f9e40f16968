"""What is asked of the service itself: versions, schemas, info, wrong methods and wrong paths."""

from __future__ import annotations

from collections.abc import Iterator

from tests.differential.steps import UNKNOWN, Scenario, Step, get, post

SCHEMAS = (
    "image", "images", "member", "members", "task", "tasks", "metadefs/namespace", "metadefs/namespaces",
    "metadefs/resource_type",
    "metadefs/resource_types", "metadefs/object", "metadefs/objects", "metadefs/property", "metadefs/properties",
    "metadefs/tag", "metadefs/tags",
)  # fmt: skip
NAMESPACE = "/v2/metadefs/namespaces/x"
PATHS = (
    "/v2/images", f"/v2/images/{UNKNOWN}", f"/v2/images/{UNKNOWN}/file", f"/v2/images/{UNKNOWN}/stage",
    f"/v2/images/{UNKNOWN}/import",
    f"/v2/images/{UNKNOWN}/tasks", f"/v2/images/{UNKNOWN}/actions/deactivate",
    f"/v2/images/{UNKNOWN}/actions/reactivate", f"/v2/images/{UNKNOWN}/tags/x",
    f"/v2/images/{UNKNOWN}/members", f"/v2/images/{UNKNOWN}/members/x", f"/v2/images/{UNKNOWN}/locations",
    "/v2/info/import", "/v2/info/stores",
    "/v2/info/stores/detail", "/v2/info/usage", "/v2/tasks", f"/v2/tasks/{UNKNOWN}", f"/v2/stores/fs/{UNKNOWN}",
    "/v2/metadefs/namespaces", NAMESPACE,
    f"{NAMESPACE}/objects", f"{NAMESPACE}/objects/x", f"{NAMESPACE}/properties", f"{NAMESPACE}/properties/x",
    f"{NAMESPACE}/tags", f"{NAMESPACE}/tags/x",
    f"{NAMESPACE}/resource_types", f"{NAMESPACE}/resource_types/x", "/v2/metadefs/resource_types", "/v2/cache",
    f"/v2/cache/{UNKNOWN}",
    f"/v2/cache/nodes/{UNKNOWN}", "/v2/cache/clean", "/v2/cache/prune",
)  # fmt: skip
# Not asked: what goes on after its answer.
LATER = ("/stage", "/import")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    yield Scenario(
        "schemas", [get(f"/v2/schemas/{name}", user) for name in SCHEMAS for user in ("member", "reader", "nobody")]
    )
    yield Scenario("schemas, otherwise", [
        *(get(f"/v2/schemas/{name}", body=b"x") for name in SCHEMAS), get("/v2/schemas/x"), get("/v2/schemas"),
        get("/v2/schemas/"), get("/v2/schemas/image/"),
        get("/v2/schemas/metadefs"), get("/v2/schemas/image?x=y"), get("/v2/schemas/Image"),
        get("/v2/schemas/metadefs/x"),
    ])  # fmt: skip
    yield Scenario("versions", list(_versions()))
    yield Scenario("methods", list(_methods()))
    yield Scenario("info", list(_info()))
    yield Scenario("the cache, where there is none", list(_no_cache()))
    yield Scenario("paths", [get(path) for path in (
        "/v2", "/v2/", "/v2//images", "/v2/images/", "/v2/nothing", "/v2/images/x/y", "/v2/images//file",
        "/v2/Images", "/v2/images%2Fx", "/v2/image", "/v2/images.json",
        "/v2/metadefs", "/v2/metadefs/", "/v2/metadefs/namespaces/", "/v2/info", "/v2/info/x", "/v2/actions",
        "/v2/images/x/actions/x", "/v2/images/x/tags", "/v2/members",
    )])  # fmt: skip


def _versions() -> Iterator[Step]:
    for path in (
        "/",
        "/versions",
        "/versions/",
        "/versions/x",
        "/v1",
        "/v1/images",
        "/v3",
        "/v2.99/images",
        "/v2.x/images",
        "/x",
        "//",
        "/V2/images",
        "/v2.18",
        "/v2.17",
    ):
        yield get(path, "nobody")
        yield get(path)
    for minor in range(20):
        yield get(f"/v2.{minor}/images?limit=1")
        yield get("/images?limit=1", headers={"Accept": f"application/vnd.openstack.images-v2.{minor}"})
    yield get("/images?limit=1", headers={"Accept": "application/vnd.openstack.images-v2"})
    yield get("/v2/images?limit=1", headers={"Accept": "application/vnd.openstack.images-v2"})
    yield get("/images", headers={"Accept": "application/vnd.openstack.images-v1"})
    yield get("/images", headers={"Accept": "application/vnd.openstack.images-"})
    for method in ("POST", "PUT", "DELETE", "HEAD", "PATCH"):
        yield Step("nobody", method, "/")
        yield Step("nobody", method, "/versions")
    yield get("/healthcheck", "nobody")
    yield Step("nobody", "HEAD", "/healthcheck")


def _methods() -> Iterator[Step]:
    for path in PATHS:
        if any(part in path for part in LATER):
            continue
        for method in METHODS:
            if (method, path) not in _MEANT:
                yield Step("member", method, path)
        yield Step("nobody", "OPTIONS", path)
    for user in ("member", "nobody"):
        for method in ("TRACE", "FOO"):
            yield Step(user, method, "/v2/images")
    for name in SCHEMAS:
        for method in ("POST", "HEAD", "DELETE"):
            yield Step("member", method, f"/v2/schemas/{name}")


# These would do something; they are asked for where they are meant.
_MEANT = frozenset({("POST", "/v2/images"), ("POST", "/v2/metadefs/namespaces")})


def _no_cache() -> Iterator[Step]:
    paths = ("", "/x", f"/{UNKNOWN}", f"/nodes/{UNKNOWN}", "/nodes", "/clean", "/prune", "/x/y")
    for user in ("member", "admin"):
        for path in paths:
            for method in ("GET", "PUT", "POST", "DELETE"):
                yield Step(user, method, f"/v2/cache{path}")
    for user in ("member", "admin", "nobody"):
        for path in ("cached_images", "queued_images"):
            yield get(f"/v2/{path}", user)
            yield Step(user, "DELETE", f"/v2/{path}")
            yield Step(user, "DELETE", f"/v2/{path}/{UNKNOWN}")
        yield Step(user, "PUT", f"/v2/queued_images/{UNKNOWN}")


def _info() -> Iterator[Step]:
    for user in ("member", "admin", "reader", "service", "nobody"):
        for path in ("import", "stores", "stores/detail", "usage"):
            yield get(f"/v2/info/{path}", user)
            yield get(f"/v2/info/{path}?x=y", user, body=b"x")
    yield post("/v2/info/stores/detail", "admin")
