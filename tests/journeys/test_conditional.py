"""ETag, If-None-Match and If-Match (RFC 9110, 13.1): the original knows none of them."""

from __future__ import annotations

import httpx
import pytest

from .client import PATCH_21, Api, replace, unused

pytestmark = pytest.mark.better_than_glance


def patch_if(api: Api, image_id: str, tag: str, name: str) -> httpx.Response:
    headers = {"Content-Type": PATCH_21, "If-Match": tag}
    return api.request("PATCH", f"/v2/images/{image_id}", json=[replace("name", name)], headers=headers)


def test_what_is_known_is_not_sent_again(api: Api) -> None:
    image = api.create(name="n", tags=["a", "b"], x="1")
    for path in (f"/v2/images/{image['id']}", f"/v2/images?id={image['id']}", "/v2/schemas/image"):
        tag = api.get(path).headers["ETag"]
        assert api.get(path).headers["ETag"] == tag
        for header in (tag, f'"other", W/{tag}', "*"):
            known = api.get(path, headers={"If-None-Match": header})
            assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", tag)
        assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    before = api.raw_show(image["id"]).headers["ETag"]
    api.patch(image["id"], replace("name", "m"))
    assert api.raw_show(image["id"]).headers["ETag"] != before


def test_a_change_of_another_version_is_refused(api: Api) -> None:
    image = api.create(name="n")["id"]
    first = api.raw_show(image).headers["ETag"]
    assert patch_if(api, image, first, "m").status_code == 200
    assert patch_if(api, image, first, "lost").status_code == 412
    assert api.show(image)["name"] == "m"
    second = api.raw_show(image).headers["ETag"]
    assert patch_if(api, image, f'"x", {second}', "o").status_code == 200
    assert patch_if(api, image, "*", "p").status_code == 200


def test_a_delete_of_another_version_is_refused(api: Api) -> None:
    image = api.active(b"abc", name=unused())["id"]
    tag = api.raw_show(image).headers["ETag"]
    api.patch(image, replace("name", "changed"))
    assert api.request("DELETE", f"/v2/images/{image}", headers={"If-Match": tag}).status_code == 412
    assert api.download(image) == b"abc"
    tag = api.raw_show(image).headers["ETag"]
    assert api.request("DELETE", f"/v2/images/{image}", headers={"If-Match": tag}).status_code == 204
