"""Downloads that a store serves itself: GET …/file answers with a link, where the operator and the client want one."""

from __future__ import annotations

import secrets
import uuid

import requests

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.rig.keystone import PASSWORD, SERVICE_USER, Keystone
from tests.rig.services import Glimpse
from tests.rig.swift import KEY, USER, KeystoneSwift, Swift

WANTED = {"Prefer": "redirect"}


def stores(swift: Swift) -> dict[str, dict[str, object]]:
    """Two stores in S3: one of them may send clients to itself."""
    s3 = {
        "s3_store_host": swift.url, "s3_store_access_key": USER, "s3_store_secret_key": KEY,
        "s3_store_bucket": f"images{uuid.uuid4().hex[:12]}", "s3_store_create_bucket_on_put": True,
        "s3_store_bucket_url_format": "path",
    }  # fmt: skip
    return {
        "DEFAULT": {"enabled_backends": "open:s3,closed:s3,fs:file", "debug": True},
        "glance_store": {"default_backend": "open"},
        "open": {**s3, "redirect_downloads": True},
        "closed": s3,
    }


def test_a_client_that_wants_it_is_sent_to_the_store(glimpse_service: ServiceFactory[Glimpse], swift: Swift) -> None:
    service = glimpse_service(stores(swift))
    api, content = ImageApi(service.url, None), secrets.token_bytes(100_000)
    image = api.create(disk_format="raw", container_format="bare")
    api.upload(image, content)

    answer = api.call("GET", f"/v2/images/{image}/file", headers=WANTED, allow_redirects=False)
    assert (answer.status_code, answer.content) == (302, b"")
    assert answer.headers["Preference-Applied"] == "redirect"
    assert answer.headers["Cache-Control"] == "no-store"
    link = answer.headers["Location"]
    assert link.startswith(swift.url)
    assert requests.get(link, timeout=30).content == content
    assert requests.get(link, timeout=30, headers={"Range": "bytes=10-19"}).content == content[10:20]
    assert requests.put(link, timeout=30, data=b"x").status_code == 403
    assert api.download(image) == content
    assert KEY not in service.logs + link
    assert link.partition("?")[2] not in service.logs


def test_temporary_urls_of_swift(
    glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, keystone_swift: KeystoneSwift
) -> None:
    """Once the account has a key for them; until then the service sends the bytes itself."""
    sections = {
        "DEFAULT": {"enabled_backends": "open:swift", "debug": True},
        "glance_store": {"default_backend": "open"},
        "open": {
            "swift_store_auth_address": f"{keystone.url}/v3", "swift_store_user": f"service:{SERVICE_USER}",
            "swift_store_key": PASSWORD, "swift_store_container": f"links{uuid.uuid4().hex[:8]}",
            "swift_store_create_container_on_put": True, "redirect_downloads": True,
        },
    }  # fmt: skip
    service = glimpse_service(sections)
    api, content = ImageApi(service.url, None), secrets.token_bytes(100_000)
    image = api.create(disk_format="raw", container_format="bare")
    api.upload(image, content)
    path = f"/v2/images/{image}/file"
    (project,) = keystone.call("GET", "/projects?name=service")["projects"]
    url = keystone_swift.account_url(project["id"])
    token, key = keystone.token(SERVICE_USER, "service"), "X-Account-Meta-Temp-URL-Key"
    requests.post(url, headers={"X-Auth-Token": token, key: ""}, timeout=30).raise_for_status()
    assert api.call("GET", path, headers=WANTED, allow_redirects=False).content == content
    requests.post(url, headers={"X-Auth-Token": token, key: "key-of-the-account"}, timeout=30).raise_for_status()
    service.restart()  # the key, or that there is none, is remembered for a minute
    link = api.call("GET", path, headers=WANTED, allow_redirects=False).headers["Location"]
    assert link.startswith(url)
    assert requests.get(link, timeout=30).content == content
    assert requests.get(link, timeout=30, headers={"Range": "bytes=10-19"}).content == content[10:20]
    assert requests.put(link, timeout=30, data=b"x").status_code == 401
    for secret in ("key-of-the-account", link.partition("?")[2], PASSWORD):
        assert secret not in service.logs
    api.delete(image)


def test_a_store_that_does_not_send_clients_away_serves_them(
    glimpse_service: ServiceFactory[Glimpse], swift: Swift
) -> None:
    service = glimpse_service(stores(swift))
    api, content = ImageApi(service.url, None), secrets.token_bytes(1000)
    for store in ("closed", "fs"):
        image = api.create(disk_format="raw", container_format="bare")
        headers = {"Content-Type": "application/octet-stream", "X-Image-Meta-Store": store}
        api.ok("PUT", f"/v2/images/{image}/file", data=content, headers=headers)
        answer = api.call("GET", f"/v2/images/{image}/file", headers=WANTED, allow_redirects=False)
        assert (answer.status_code, answer.content) == (200, content)


def test_who_may_not_download_gets_no_link(glimpse_service: ServiceFactory[Glimpse], swift: Swift) -> None:
    service = glimpse_service(stores(swift), start=False)
    (service.config_dir / "policy.yaml").write_text('"download_image": "!"\n')
    service.manage("db_sync")
    service.start()
    api = ImageApi(service.url, None)
    image = api.create(disk_format="raw", container_format="bare")
    api.upload(image, b"bytes")
    answer = api.call("GET", f"/v2/images/{image}/file", headers=WANTED, allow_redirects=False)
    assert answer.status_code == 403
    assert "Location" not in answer.headers
