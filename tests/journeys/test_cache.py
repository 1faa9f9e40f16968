"""The cache: downloads from a slow place are read there once, whoever asks, and kept until there is no room."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from .client import Api, add, remove, unused
from .conftest import LOCATIONS, SERVICE_USERS, run, signed_in, with_users
from .service import MULTI_STORE, Service
from .site import Site

pytestmark = pytest.mark.better_than_glance  # its cache reads a store once for each request, and serves no ranges

MIB = 1 << 20
BOUND = 8 * MIB


def with_cache(home: Path) -> dict[str, dict[str, object]]:
    """What a service with a cache has that others have not."""
    changes: dict[str, dict[str, object]] = {name: dict(options) for name, options in LOCATIONS.items()}
    users = with_users(home, SERVICE_USERS)
    changes["DEFAULT"] |= users["DEFAULT"] | {
        "image_cache_dir": home / "cache",
        "image_cache_max_size": BOUND,
        "hashing_algorithm": "sha512",
        "worker_self_reference_url": "http://node-1:9292",
    }
    changes["paste_deploy"] = {"flavor": "http_basic+cachemanagement"}
    return changes


@pytest.fixture(scope="module")
def caching(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """A service with a cache, in two processes, and its users."""
    home = tmp_path_factory.mktemp("caching")
    service = Service(home, MULTI_STORE)
    home.mkdir(exist_ok=True)
    service.configure(with_cache(home))
    yield from run(service, tables)


@pytest.fixture(scope="module")
def user(caching: Service) -> Iterator[Callable[[str], Api]]:
    """`user("alice")` calls it as alice."""
    yield from signed_in(caching, SERVICE_USERS)


@pytest.fixture
def admin(user: Callable[[str], Api]) -> Iterator[Api]:
    """An operator, who finds the cache empty."""
    caller = user("admin")
    caller.request("DELETE", "/v2/cache")
    yield caller


class Slow:
    """Holds up a web server until the test lets it go on."""

    def __init__(self, site: Site) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        site.before = self

    def __call__(self, path: str) -> None:
        self.reached.set()
        assert self.go_on.wait(30)


def elsewhere(api: Api, site: Site, data: bytes, verified: bool = True, **fields: object) -> str:
    """The id of an active image whose bytes are on a web server."""
    image = api.ready(**fields)
    place = {"url": site.add(data), "metadata": {}}
    if verified:
        place["validation_data"] = {
            "checksum": hashlib.md5(data).hexdigest(),
            "os_hash_algo": "sha512",
            "os_hash_value": hashlib.sha512(data).hexdigest(),
        }
    assert api.raw_patch(image["id"], [add("locations/-", place)]).status_code == 200
    return str(image["id"])


def state(admin: Api) -> dict[str, list]:  # type: ignore[type-arg]
    """GET /v2/cache."""
    response = admin.get("/v2/cache")
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


def cached(admin: Api) -> list[str]:
    """The ids of the copies."""
    return [copy["image_id"] for copy in state(admin)["cached_images"]]


def wait_for(what: Callable[[], object], seconds: float = 10) -> None:
    """Return when it is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reads(site: Site) -> int:
    """How often bytes were asked for."""
    return sum(entry.startswith("GET") for entry in site.asked)


def test_the_second_download_comes_from_the_copy(
    admin: Api, user: Callable[[str], Api], site: Site, caching: Service
) -> None:
    data = os.urandom(3 * MIB + 17)
    image = elsewhere(user("alice"), site, data)
    response = user("alice").raw_download(image)
    assert (response.status_code, response.content) == (200, data)
    assert response.headers["Content-MD5"] == hashlib.md5(data).hexdigest()
    wait_for(lambda: image in cached(admin))
    again = user("alice").raw_download(image)
    assert again.content == data
    assert {**again.headers, "x-openstack-request-id": "", "date": ""} == {
        **response.headers,
        "x-openstack-request-id": "",
        "date": "",
    }
    assert reads(site) == 1
    wait_for(lambda: state(admin)["cached_images"][0]["hits"] == 1)
    copy = state(admin)["cached_images"][0]
    assert copy["size"] == len(data)
    assert copy["checksum"] == hashlib.md5(data).hexdigest()
    assert abs(copy["last_modified"] - time.time()) < 30
    assert abs(copy["last_accessed"] - time.time()) < 30
    assert (caching.home / "cache" / image).read_bytes() == data
    assert admin.get(f"/v2/cache/nodes/{image}").json() == ["http://node-1:9292"]


def test_many_readers_one_read_of_the_store(admin: Api, user: Callable[[str], Api], site: Site) -> None:
    data = os.urandom(2 * MIB)
    image = elsewhere(user("alice"), site, data)
    slow = Slow(site)
    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(_whole, f"{admin.url}/v2/images/{image}/file") for _ in range(40)]
        assert slow.reached.wait(10)
        time.sleep(0.5)
        slow.go_on.set()
        assert all(answer.result() == data for answer in answers)
    assert reads(site) == 1


def test_ranges_of_a_place_that_has_none(admin: Api, user: Callable[[str], Api], site: Site) -> None:
    data = os.urandom(MIB + 5)
    image = elsewhere(user("alice"), site, data)
    for _ in range(2):
        part = user("alice").raw_download(image, {"Range": f"bytes=1000-{MIB}"})
        assert (part.status_code, part.content) == (206, data[1000 : MIB + 1])
        assert part.headers["Content-Range"] == f"bytes 1000-{MIB}/{len(data)}"
        wait_for(lambda: image in cached(admin))
    assert user("alice").raw_download(image, {"Range": "bytes=-5"}).content == data[-5:]
    assert user("alice").raw_download(image, {"Range": f"bytes={len(data)}-"}).status_code == 416
    assert reads(site) == 1


def test_the_copy_is_made_though_its_first_reader_leaves(admin: Api, user: Callable[[str], Api], site: Site) -> None:
    data = os.urandom(4 * MIB)
    image = elsewhere(user("alice"), site, data)
    with user("alice").http.stream("GET", f"/v2/images/{image}/file") as response:
        assert response.status_code == 200
        next(response.iter_raw(1000))
    wait_for(lambda: image in cached(admin))
    assert user("alice").download(image) == data
    assert reads(site) == 1


def test_ossa_2013_027_a_copy_is_no_way_around_the_policy(admin: Api, user: Callable[[str], Api], site: Site) -> None:
    image = elsewhere(user("alice"), site, b"secret of A")
    assert user("alice").download(image) == b"secret of A"
    wait_for(lambda: image in cached(admin))
    for headers in ({}, {"Range": "bytes=0-3"}):
        assert user("bob").raw_download(image, headers).status_code == 404
        assert user("carol").raw_download(image, headers).status_code == 403  # a reader
        assert httpx.get(f"{admin.url}/v2/images/{image}/file", headers=headers).status_code == 401
    assert user("bob").request("HEAD", f"/v2/images/{image}/file").status_code == 405
    assert admin.request("POST", f"/v2/images/{image}/actions/deactivate").status_code == 204
    for headers in ({}, {"Range": "bytes=0-3"}):
        assert user("alice").raw_download(image, headers).status_code == 403
    assert admin.download(image) == b"secret of A"


def test_ossa_2013_027_nor_around_rules_about_properties(
    own: Callable[..., Service], site: Site, tmp_path: Path
) -> None:
    home = tmp_path / "users"
    home.mkdir()
    (home / "policy.yaml").write_text("""download_image: "role:admin or not 'yes':%(restricted)s"\n""")
    service = own({**with_cache(home), "oslo_policy": {"policy_file": home / "policy.yaml"}})
    alice, admin = (Api(service.url, (name, f"{name}-secret")) for name in ("alice", "admin"))
    image = elsewhere(alice, site, b"content")
    assert alice.download(image) == b"content"
    wait_for(lambda: cached(admin) == [image])
    admin.patch(image, add("restricted", "yes"))
    for headers in ({}, {"Range": "bytes=0-3"}):
        assert alice.raw_download(image, headers).status_code == 403
        assert admin.raw_download(image, headers).is_success
    assert reads(site) == 1


def test_ossa_2013_007_a_copy_tells_no_place(admin: Api, user: Callable[[str], Api], site: Site) -> None:
    image = elsewhere(user("alice"), site, b"content")
    for _ in range(2):
        answer = user("alice").raw_download(image)
        assert not [name for name in answer.headers if "location" in name or "meta" in name]
        assert site.url not in str(answer.headers)
        wait_for(lambda: image in cached(admin))


def test_wrong_data_is_never_taken_for_the_image(
    admin: Api, user: Callable[[str], Api], site: Site, caching: Service
) -> None:
    data = os.urandom(2 * MIB)
    image = elsewhere(user("alice"), site, data)
    path = next(iter(site.pages))
    for swapped in (data[:-1] + bytes([data[-1] ^ 1]), bytes(len(data))):
        site.pages[path] = swapped
        with pytest.raises(httpx.TransportError):
            user("alice").raw_download(image)
        assert cached(admin) == []
        assert (caching.home / "cache" / "invalid" / image).read_bytes() == swapped
    site.pages[path] = data
    assert user("alice").download(image) == data
    wait_for(lambda: cached(admin) == [image])
    assert admin.request("POST", "/v2/cache/clean").status_code == 200
    assert not (caching.home / "cache" / "invalid" / image).exists()


def test_a_place_that_fails(admin: Api, user: Callable[[str], Api], site: Site, caching: Service) -> None:
    image = elsewhere(user("alice"), site, b"content")
    path = next(iter(site.pages))
    del site.pages[path]
    assert user("alice").raw_download(image).status_code == 204  # as without a cache
    assert list((caching.home / "cache" / "incomplete").iterdir()) == []
    site.pages[path] = b"content"
    assert user("alice").download(image) == b"content"


def test_the_least_recently_asked_for_goes_first(admin: Api, user: Callable[[str], Api], site: Site) -> None:
    images = []
    for _ in range(3):
        images.append(elsewhere(user("alice"), site, os.urandom(3 * MIB - 10)))
        user("alice").download(images[-1])
        wait_for(lambda: images[-1] in cached(admin))
        time.sleep(1.1)  # times are whole seconds
        if len(images) == 2:
            user("alice").download(images[0])
            wait_for(lambda: max(copy["hits"] for copy in state(admin)["cached_images"]) == 1)
            time.sleep(1.1)
    wait_for(lambda: sorted(cached(admin)) == sorted([images[0], images[2]]))
    assert admin.request("POST", "/v2/cache/prune").json() == {"total_files_pruned": 0, "total_bytes_pruned": 0}


def test_what_is_larger_than_the_cache_is_not_kept(admin: Api, user: Callable[[str], Api], site: Site) -> None:
    data = os.urandom(BOUND + 1)
    image = elsewhere(user("alice"), site, data)
    assert user("alice").download(image) == data
    assert user("alice").download(image) == data
    assert cached(admin) == []
    assert reads(site) == 2
    assert admin.request("PUT", f"/v2/cache/{image}").status_code == 202
    wait_for(lambda: state(admin) == {"cached_images": [], "queued_images": []})


def test_the_api(admin: Api, user: Callable[[str], Api], site: Site, caching: Service) -> None:
    alice = user("alice")
    queued = alice.ready()["id"]
    assert admin.request("PUT", f"/v2/cache/{queued}").status_code == 400
    assert admin.request("PUT", f"/v2/cache/{unused()}").status_code == 404
    assert admin.request("PUT", "/v2/cache/..%2Fx").status_code == 404
    assert admin.request("DELETE", f"/v2/cache/{unused()}").status_code == 404
    image = alice.active(b"in files")["id"]
    assert alice.download(image) == b"in files"
    assert cached(admin) == []  # what lies in files here needs no copy
    response = admin.request("PUT", f"/v2/cache/{image}")
    assert (response.status_code, response.content) == (202, b"")
    wait_for(lambda: cached(admin) == [image])
    wait_for(lambda: state(admin)["queued_images"] == [])
    assert alice.download(image) == b"in files"
    wait_for(lambda: state(admin)["cached_images"][0]["hits"] == 1)
    assert admin.request("DELETE", f"/v2/cache/{image}").status_code == 204
    assert cached(admin) == []
    assert admin.request("DELETE", f"/v2/cache/{image}").status_code == 204  # the image is there, and that will do
    assert admin.get(f"/v2/cache/nodes/{image}").json() == []
    assert admin.get(f"/v2/cache/nodes/{unused()}").status_code == 404

    for target, left in (("queue", [image]), ("CACHE", []), ("", []), (None, [])):
        admin.request("PUT", f"/v2/cache/{image}")
        wait_for(lambda: cached(admin) == [image])
        headers = {} if target is None else {"x-image-cache-clear-target": target}
        assert admin.request("DELETE", "/v2/cache", headers=headers).status_code == 204
        assert cached(admin) == left
    bad = admin.request("DELETE", "/v2/cache", headers={"x-image-cache-clear-target": "both"})
    assert bad.status_code == 400

    for method, path in (
        ("GET", "/v2/cache"), ("DELETE", "/v2/cache"), ("PUT", f"/v2/cache/{image}"), ("DELETE", f"/v2/cache/{image}"),
        ("GET", f"/v2/cache/nodes/{image}"), ("POST", "/v2/cache/clean"), ("POST", "/v2/cache/prune"),
        ("GET", "/v2/cached_images"), ("PUT", f"/v2/queued_images/{image}"),
    ):  # fmt: skip
        assert alice.request(method, path).status_code == 403, path
    assert user("bob").request("PUT", f"/v2/cache/{image}").status_code == 404


def test_the_older_calls(admin: Api, user: Callable[[str], Api], caching: Service) -> None:
    image, unknown = user("alice").active(b"content")["id"], unused()
    for wanted in (image, unknown):
        queued = admin.request("PUT", f"/v2/queued_images/{wanted}")
        assert (queued.status_code, queued.text) == (200, "null")
    assert set(admin.get("/v2/queued_images").json()["queued_images"]) <= {image, unknown}
    assert admin.request("DELETE", f"/v2/queued_images/{unknown}").text == "null"
    assert admin.request("PUT", f"/v2/cache/{image}").status_code == 202
    wait_for(lambda: cached(admin) == [image])
    assert [copy["image_id"] for copy in admin.get("/v2/cached_images").json()["cached_images"]] == [image]
    assert admin.request("DELETE", f"/v2/cached_images/{unknown}").text == "null"
    assert admin.request("DELETE", "/v2/cached_images").json() == {"num_deleted": 1}
    assert admin.request("DELETE", "/v2/queued_images").json() == {"num_deleted": 0}
    assert list((caching.home / "cache" / "queue").iterdir()) == []


def test_a_deleted_image_leaves_no_copy(admin: Api, user: Callable[[str], Api], site: Site, caching: Service) -> None:
    image = elsewhere(user("alice"), site, b"content")
    user("alice").download(image)
    wait_for(lambda: cached(admin) == [image])
    user("alice").delete(image)
    assert state(admin) == {"cached_images": [], "queued_images": []}
    assert not list((caching.home / "cache").rglob(image))


def test_an_image_that_gets_other_data(admin: Api, user: Callable[[str], Api], site: Site) -> None:
    """Without a checksum nothing but the record's time tells that its data is another."""
    image = elsewhere(user("alice"), site, b"old data", verified=False)
    time.sleep(1.1)
    assert user("alice").download(image) == b"old data"
    wait_for(lambda: image in cached(admin))
    assert user("alice").download(image) == b"old data"
    assert reads(site) == 1
    user("alice").patch(image, add("locations/-", {"url": site.add(b"new data"), "metadata": {}}))
    admin.patch(image, remove("locations/0"))
    assert user("alice").download(image) == b"new data"


def test_without_a_cache(placer: Callable[[str], Api]) -> None:
    image = placer("alice").active()["id"]
    for method, path in (
        ("GET", "/v2/cache"), ("DELETE", "/v2/cache"), ("PUT", f"/v2/cache/{image}"), ("DELETE", f"/v2/cache/{image}"),
        ("GET", f"/v2/cache/nodes/{image}"), ("POST", "/v2/cache/clean"), ("POST", "/v2/cache/prune"),
    ):  # fmt: skip
        assert placer("admin").request(method, path).status_code == 404, path
        assert placer("alice").request(method, path).status_code == 403, path
    assert placer("admin").get("/v2/cached_images").status_code == 404


def test_a_worker_that_is_killed_while_it_fills(own: Callable[..., Service], site: Site, tmp_path: Path) -> None:
    """kill -9: readers of the other worker get all of it, and it takes one more read."""
    home = tmp_path / "users"
    home.mkdir()
    service = own(with_cache(home))
    api = Api(service.url, ("alice", "alice-secret"))
    data = os.urandom(6 * MIB)
    image = elsewhere(api, site, data)
    half, go_on = threading.Event(), threading.Event()
    site.midway = (3 * MIB, lambda: (half.set(), go_on.wait(30)))
    url = f"{service.url}/v2/images/{image}/file"
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(_whole, url) for _ in range(16)]
        assert half.wait(10)
        time.sleep(1)
        busy = [pid for pid in service.listeners() if _locks(pid, home / "cache" / "incomplete" / image)]
        assert len(busy) == 1
        os.kill(busy[0], signal.SIGKILL)
        site.midway = None
        go_on.set()
        results = [answer.result() for answer in answers]
    whole = [result for result in results if result == data]
    assert all(result is None or result == data for result in results)
    assert whole
    assert reads(site) == 2
    admin = Api(service.url, ("admin", "admin-secret"))
    wait_for(lambda: cached(admin) == [image])


def _whole(url: str) -> bytes | None:
    """None where the connection was cut."""
    try:
        return httpx.get(url, auth=("alice", "alice-secret"), timeout=60).content
    except httpx.TransportError:
        return None


def _locks(pid: int, path: Path) -> bool:
    inode = str(path.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and int(fields[4]) == pid and fields[5].rpartition(":")[2] == inode:
            return True
    return False


def test_a_disk_that_fills_up_while_it_is_cached(own: Callable[..., Service], site: Site, tmp_path: Path) -> None:
    """Downloads go on from the web server, and nothing of the image is left in the cache."""
    home = tmp_path / "users"
    home.mkdir()
    service = own(with_cache(home), ("prlimit", f"--fsize={4 * MIB}", "--"))
    data = os.urandom(6 * MIB)
    image = elsewhere(Api(service.url, ("alice", "alice-secret")), site, data)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(_whole, f"{service.url}/v2/images/{image}/file") for _ in range(4)]
        assert all(answer.result() == data for answer in answers)
    assert not list((home / "cache").rglob(image))


def test_what_is_queued_is_fetched_after_a_restart(own: Callable[..., Service], tmp_path: Path) -> None:
    home = tmp_path / "users"
    home.mkdir()
    service = own(with_cache(home))
    image = Api(service.url, ("alice", "alice-secret")).active(b"content")["id"]
    service.kill()
    (home / "cache" / "queue" / image).touch()
    (home / "cache" / "queue" / unused()).touch()
    service.start()
    admin = Api(service.url, ("admin", "admin-secret"))
    wait_for(lambda: (cached(admin), state(admin)["queued_images"]) == ([image], []))


def test_a_service_that_is_killed_at_any_moment(own: Callable[..., Service], site: Site, tmp_path: Path) -> None:
    """Nothing that is served afterwards is other than the image, and nothing has to be cleaned up by hand."""
    home = tmp_path / "users"
    home.mkdir()
    service = own(with_cache(home))
    data = os.urandom(6 * MIB)
    image = elsewhere(Api(service.url, ("alice", "alice-secret")), site, data)
    site.midway = (3 * MIB, lambda: time.sleep(0.1))
    url = f"{service.url}/v2/images/{image}/file"
    for moment in (0.03, 0.12, 0.14, 0.16, 0.2, 0.3):
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(_whole, url) for _ in range(4)]
            time.sleep(moment)
            service.kill()
            assert {answer.result() for answer in answers} <= {None, data}
        copy = home / "cache" / image
        if copy.exists():
            assert copy.read_bytes() == data
            copy.unlink()
        service.start()
    assert _whole(url) == data
    admin = Api(service.url, ("admin", "admin-secret"))
    wait_for(lambda: cached(admin) == [image])
    assert list((home / "cache" / "incomplete").iterdir()) == []


def test_two_nodes(own: Callable[..., Service], site: Site, tmp_path: Path) -> None:
    """Each has its own copies, in one database; an image that is deleted on one is not served by the other."""
    home = tmp_path / "users"
    home.mkdir()
    here = own(with_cache(home))
    there = own({**with_cache(home), "database": {}})
    there.kill()
    there.database = here.database
    there.configure({"DEFAULT": {"image_cache_dir": home / "other", "worker_self_reference_url": "http://node-2:9292"}})
    there.start()
    alice, admin = (Api(here.url, (name, f"{name}-secret")) for name in ("alice", "admin"))
    far, far_admin = (Api(there.url, (name, f"{name}-secret")) for name in ("alice", "admin"))
    image = elsewhere(alice, site, b"content")
    assert alice.download(image) == b"content"
    wait_for(lambda: cached(admin) == [image])
    assert cached(far_admin) == []
    assert far_admin.request("PUT", f"/v2/cache/{image}").status_code == 202
    wait_for(lambda: cached(far_admin) == [image])
    assert admin.get(f"/v2/cache/nodes/{image}").json() == ["http://node-1:9292", "http://node-2:9292"]
    assert far_admin.request("DELETE", "/v2/cache").status_code == 204
    assert (cached(admin), cached(far_admin)) == ([image], [])
    assert far.download(image) == b"content"
    wait_for(lambda: cached(far_admin) == [image])
    assert reads(site) == 3
    alice.delete(image)
    assert far.raw_download(image).status_code == 404
    there.kill()
    there.start()  # it looks for deleted images when it starts, and now and then
    wait_for(lambda: not list((home / "other").rglob(image)))
