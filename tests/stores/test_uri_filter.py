"""Where on the web callers may send the service (spec 5.2); names are those that need no network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glimpse.settings import FilterSettings
from glimpse.stores import addresses
from glimpse.stores.uri_filter import UriFilter

DEFAULTS = FilterSettings(("http", "https"), (), (), (), (80, 443), ())


def allowing(*hosts: str) -> FilterSettings:
    return replace(DEFAULTS, allowed_hosts=hosts)


@pytest.mark.parametrize(
    "uri",
    [
        "http://192.0.2.1/x",
        "https://192.0.2.1/x",
        "http://192.0.2.1:80/x",
        "http://192.0.2.1:443/",
        "http://user:secret@192.0.2.1/x",
        "http://10.0.0.1/private-networks-are-for-the-operator",
        "http://[2001:db8::1]/x",
    ],
)
async def test_lets_pass(uri: str) -> None:
    assert await UriFilter(DEFAULTS).passes(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "x",
        "http://",
        "http:///x",
        "ftp://192.0.2.1/x",
        "file:///etc/passwd",
        "//192.0.2.1/x",
        "http://192.0.2.1:22/x",
        "http://192.0.2.1:99999/x",
        "http://192.0.2.1:x/x",
        "http://[::1/x",
        "http://127.0.0.1/x",
        "http://127.8.8.8/x",
        "http://0.0.0.0/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/x",
        "http://[::]/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://[::ffff:a9fe:a9fe]/x",
        "http://[::7f00:1]/x",
        "http://[64:ff9b::7f00:1]/x",
        "http://[2002:7f00:1::1]/x",
        "http://[fe80::1]/x",
        "http://[fe80::1%25lo]/x",
        "http://[::1%25lo]/x",
        "http://0.0.0.1/x",
        "http://%31%32%37.0.0.1/x",
        "http://①②⑦.⓪.⓪.①/x",
        "http://127。0。0。1/x",
        "http://2130706433/x",
        "http://0x7f000001/x",
        "http://0x7f.0.0.1/x",
        "http://017700000001/x",
        "http://127.1/x",
        "http://127.0.0.1./x",
        "http://192.0.2.1@127.0.0.1/x",
        "http://nothing.invalid/x",
    ],
)
async def test_stops(uri: str) -> None:
    assert not await UriFilter(DEFAULTS).passes(uri)
    assert not await UriFilter(allowing("192.0.2.9")).passes(uri)


async def test_hosts() -> None:
    listed = UriFilter(allowing("127.0.0.1", "192.0.2.1"))
    assert await listed.passes("http://127.0.0.1/x")
    assert await listed.passes("http://192.0.2.1/x")
    assert not await listed.passes("http://192.0.2.2/x")
    closed = replace(DEFAULTS, disallowed_hosts=("192.0.2.1",))
    assert not await UriFilter(closed).passes("http://192.0.2.1/x")
    assert not await UriFilter(closed).passes("http://[::ffff:192.0.2.1]/x")
    assert await UriFilter(closed).passes("http://192.0.2.2/x")
    both = replace(closed, allowed_hosts=("192.0.2.1",))
    assert await UriFilter(both).passes("http://192.0.2.1/x"), "what is allowed makes the other list void"


async def test_schemes_and_ports() -> None:
    lists = FilterSettings((), ("http",), (), (), (), (22,))
    assert await UriFilter(lists).passes("https://192.0.2.1:8443/x")
    assert not await UriFilter(lists).passes("https://192.0.2.1:22/x")
    assert not await UriFilter(lists).passes("http://192.0.2.1/x")


async def test_a_dot_at_its_end_makes_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_look_up", lambda name: ["192.0.2.1"])
    closed = UriFilter(replace(DEFAULTS, disallowed_hosts=("images.example",)))
    listed = UriFilter(allowing("images.example"))
    for url in ("http://images.example/x", "http://images.example./x", "http://IMAGES.example./x"):
        assert not await closed.passes(url)
        assert await listed.passes(url)
