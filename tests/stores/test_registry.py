"""The configured stores together: which are in use, and what is said of those that are not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from glimpse.domain.record import Location
from glimpse.errors import Gone, Unavailable, Unconfigured
from glimpse.settings import Settings, load
from glimpse.stores import registry
from glimpse.stores.file import OPTIONS, FileStore
from glimpse.stores.registry import Driver, Stores, open_stores

TWO = "[DEFAULT]\nenabled_backends = one:file,two:file\n[glance_store]\ndefault_backend = {}\n[database]\nconnection = sqlite://\n"


class Lacking(FileStore):
    """A file store that, as two, lacks something."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        if where == "[two]":
            raise Unconfigured("[two] needs the package python3-two")
        super().__init__(options, where)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Settings:
    """Two stores, one of which may lack something; the default one is the test's parameter."""
    kinds = {"file": Driver(OPTIONS, Lacking, FileStore.facts.schemes)}
    monkeypatch.setattr(registry, "DRIVERS", kinds)
    folders = "".join(f"[{name}]\nfilesystem_store_datadir = {tmp_path / name}\n" for name in ("one", "two"))
    (tmp_path / "glance-api.conf").write_text(TWO.format(request.param) + folders)
    return load(["--config-file", str(tmp_path / "glance-api.conf")])


@pytest.mark.parametrize("settings", ["one"], indirect=True)
async def test_a_store_that_lacks_something_is_out_of_service(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    stores = open_stores(settings)
    assert "store two is out of service: [two] needs the package python3-two" in caplog.text
    two = stores.get("two")
    assert two is not None
    assert not two.store.facts.writable
    with pytest.raises(Unavailable):
        await two.store.open("file:///x")
    with pytest.raises(Gone):
        await two.store.put("x", _nothing(), 0)
    await stores.close()


@pytest.mark.parametrize("settings", ["one"], indirect=True)
async def test_a_store_that_is_gone_is_no_other(settings: Settings, tmp_path: Path) -> None:
    """Images that were in both stores have bytes of the same name in the one that is left."""
    stores = Stores([open_stores(settings).default], "one", True)
    there, elsewhere = (tmp_path / "one" / "x").as_uri(), "file:///gone/x"

    def found(url: str, **metadata: str) -> str | None:
        store = stores.holding(Location(url, metadata))
        return store and store.id

    assert found(elsewhere, store="gone") is None
    assert found(there, store="renamed") == "one"
    assert found(elsewhere) == "one"
    assert found(elsewhere, store="one") == "one"
    await stores.close()


async def _nothing() -> Any:
    for block in ():
        yield block


@pytest.mark.parametrize("settings", ["two"], indirect=True)
def test_the_default_store_may_lack_nothing(settings: Settings) -> None:
    with pytest.raises(Unconfigured, match="python3-two"):
        open_stores(settings)


@pytest.mark.parametrize("settings", ["one"], indirect=True)
async def test_what_cannot_be_used_is_said(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a store that hangs: nobody waits for it for ever."""
    monkeypatch.setattr(registry, "CHECK_FOR", 0.05)
    stores: Stores = open_stores(settings)
    monkeypatch.setattr(stores.default.store, "check", lambda: asyncio.sleep(60))
    with caplog.at_level(logging.WARNING):
        await stores.look()
    assert "store one does not answer" in caplog.text
    assert "store two cannot be used now" in caplog.text
    await stores.close()
