"""Requests that are drawn: a few users do this and that to a few images, the same in each run."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from tests.differential.steps import (
    PATCH_20,
    PATCH_21,
    Scenario,
    Settle,
    Step,
    delete,
    fixed,
    get,
    patch,
    post,
    put,
    upload,
)  # fmt: skip

SEED = 20260401
ROUNDS = 60
STEPS = 16
USERS = ("member", "member", "member", "admin", "stranger", "reader", "here", "there")
IMAGES = ("a", "b", "c")
VALUES: dict[str, tuple[Any, ...]] = {
    "name": ("x", "y", "", None, "n" * 255, "n" * 256, 5, "映像"),
    "visibility": ("public", "private", "shared", "shared", "community", "x", None),
    "protected": (True, False, False, "x"),
    "os_hidden": (True, False, 0),
    "min_ram": (0, 1, 512, -1, "x", None),
    "min_disk": (0, 20, 2**31, 1.5),
    "disk_format": ("raw", "raw", "qcow2", None, "x"),
    "container_format": ("bare", "bare", "ovf", None, "x"),
    "tags": (["t"], ["t", "u"], [], ["t", "t"], "t", [1]),
    "os_distro": ("debian", "ubuntu", "", 5, None),
    "os_version": ("1", "2"),
    "a/b": ("1", "2"),
    "status": ("active",),
    "owner": ("${demo}", "${alt}"),
}
FILTERS = (
    "name=x", "name=in:x,y", "status=active", "status=in:queued,active", "visibility=shared", "visibility=public",
    "visibility=community", "visibility=all",
    "member_status=all", "member_status=pending", "tag=t", "tag=u", "os_distro=debian", "os_version=1",
    "os_hidden=true", "protected=true", "min_ram_min=1",
    "size_min=1", "disk_format=raw", "owner=${demo}", "limit=2", "limit=1", "sort=name:asc", "sort=size:desc",
    "sort=id:asc", "marker=${a}", "x=y",
)  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """As many as `ROUNDS`."""
    random = Random(SEED)
    for number in range(ROUNDS):
        steps: list[Step | Settle] = [_creation(random, image) for image in IMAGES]
        steps.append(Settle())
        steps += [_anything(random) for _ in range(STEPS)]
        yield Scenario(f"drawn {number}", steps, chained=True)


def _creation(random: Random, image: str) -> Step:
    body: dict[str, Any] = {"id": fixed(IMAGES.index(image) + 1)}
    if random.random() < 0.8:
        body |= {"disk_format": "raw", "container_format": "bare"}
    for name in random.sample(sorted(VALUES), random.randint(0, 4)):
        # mostly what is taken, which stands first
        values = VALUES[name]
        body[name] = values[0] if random.random() < 0.7 else random.choice(values)
    return post("/v2/images", random.choice(USERS), json=body, keep=image)


def _anything(random: Random) -> Step:
    image, user = f"${{{random.choice(IMAGES)}}}", random.choice(USERS)
    path = f"/v2/images/{image}"
    project = random.choice(("${demo}", "${alt}", "other"))
    kinds = (
        lambda: get(path, user),
        lambda: get(f"{path}/file", user),
        lambda: upload(image, user, random.choice((b"content", b"", b"x" * 1000))),
        lambda: _patch(random, image, user),
        lambda: _patch(random, image, user),
        lambda: _patch(random, image, user),
        lambda: delete(path, user),
        lambda: put(f"{path}/tags/{random.choice('tuv')}", user),
        lambda: delete(f"{path}/tags/{random.choice('tuv')}", user),
        lambda: post(f"{path}/members", user, json={"member": project}),
        lambda: put(f"{path}/members/{project}", user, json={"status": random.choice(("accepted", "rejected",
        "pending", "x"))}),
        lambda: delete(f"{path}/members/{project}", user),
        lambda: get(f"{path}/members", user),
        lambda: post(f"{path}/actions/{random.choice(('deactivate', 'reactivate'))}", user),
        lambda: _list(random, user),
        lambda: _list(random, user),
    )  # fmt: skip
    return random.choice(kinds)()


def _patch(random: Random, image: str, user: str) -> Step:
    operations = []
    old = random.random() < 0.2
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        # Glance lets anybody give an image away by `add`
        name = random.choice([name for name in sorted(VALUES) if name != "owner" or user == "admin"])
        operation, path = random.choice(("add", "replace", "replace", "remove")), "/" + name.replace("/", "~1")
        entry: dict[str, Any] = {operation: path} if old else {"op": operation, "path": path}
        if operation != "remove":
            entry["value"] = random.choice(VALUES[name])
        operations.append(entry)
    return patch(image, operations, user, PATCH_20 if old else PATCH_21)


def _list(random: Random, user: str) -> Step:
    chosen = random.sample(FILTERS, random.randint(1, 3))
    names = {each.partition("=")[0]: each for each in chosen}
    if "sort" not in names:
        names["sort"] = "sort=name:asc"
    return get("/v2/images?" + "&".join(names.values()), user)
