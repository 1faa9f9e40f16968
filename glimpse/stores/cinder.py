"""Store `cinder`: each image is a volume of the Block Storage service, which os-brick attaches to this host.

glance_store's driver does that; here is what it lacks. It keeps one session of Keystone for all stores of a process,
attaches a volume for each reader, though most can be attached only once, makes a second volume for an image that has
one, cannot find what a killed upload left, and says the same of a volume that is absent, one that is in use, and a
quota.

A volume of ours is marked with its store in the metadata `glance_store`, beside Glance's own `glance_image_id`: several
stores may have their volumes in one project.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakValueDictionary

from oslo_config import cfg

from glimpse.errors import Conflict, GlimpseError, NotFound, StoreFull, Unconfigured
from glimpse.settings import Settings
from glimpse.store_settings import StoreSettings
from glimpse.stores.adapter import AdaptedStore

MARK = "glance_store"
# Microversions: volumes are attached in this one, here as in the driver. Before 3.31 their lists can be filtered by
# everybody, later only as Cinder's resource_filters.json allows.
ATTACHMENTS, LISTS = "3.54", "3.0"
HTTP_SECONDS = 60.0  # that Cinder and Keystone may be silent

_session_lock = threading.Lock()


class CinderStore(AdaptedStore):
    """An `AdaptedStore`. Without credentials of its own it uses the caller's token, and volumes are in that project."""

    package = "glance_store[cinder]"
    schemes = ("cinder",)

    def __init__(self, settings: Settings, store: StoreSettings) -> None:
        self._mark = store.id
        super().__init__(settings, store)

    def _require(self, where: str) -> None:
        # Every access ends with a lock between processes; without a place for it nothing would ever be read.
        if not cfg.CONF.oslo_concurrency.lock_path:
            raise Unconfigured(f"{where}: a store of type cinder needs [oslo_concurrency] lock_path, a directory")

    def _details(self) -> Mapping[str, Any]:
        return {
            "volume_type": self._options["cinder_volume_type"], "use_multipath": self._options["cinder_use_multipath"],
        }  # fmt: skip

    def _prepare(self, driver: Any) -> None:
        super()._prepare(driver)
        _give_own_session(driver)
        driver._open_cinder_volume = _Devices(driver._open_cinder_volume).open
        create, mark = driver.volume_api.create, self._mark

        def create_marked(client: Any, size: int, name: str, metadata: dict[str, str], **more: Any) -> Any:
            # Into the driver's own dictionary: it writes that once more when it has learnt the size.
            metadata[MARK] = mark
            return create(client, size, name, metadata=metadata, **more)

        driver.volume_api.create = create_marked

    def _meaning(self, error: Exception) -> GlimpseError:
        match status_of(error):
            case 404:
                return NotFound("The store does not have these bytes.")
            case 413:
                return StoreFull("The store is full.")
            case _:
                return super()._meaning(error)

    def _client(self, version: str) -> Any:
        driver = self._product.driver()
        driver._check_context(self._caller)
        return driver.get_cinderclient(self._caller, version=version)

    def _kept(self, image_id: str) -> Sequence[str]:
        wanted = {"glance_image_id": image_id, MARK: self._mark}
        volumes = self._client(LISTS).volumes.list(search_opts={"name": f"image-{image_id}", "metadata": wanted})
        prefix = self._prefix() or "cinder://"
        return [
            f"{prefix}{volume.id}" for volume in volumes
            if wanted.items() <= volume.metadata.items() and volume.status != "deleting"
        ]  # fmt: skip

    def _remove(self, url: str) -> None:
        """A killed process leaves its volume attached: Cinder deletes none of those. The device on the host stays."""
        client, volume = self._client(ATTACHMENTS), url.rpartition("/")[2]
        for attachment in client.attachments.list(search_opts={"volume_id": volume}):
            client.attachments.delete(attachment.id)
        super()._remove(url)

    async def delete(self, url: str) -> None:
        try:
            await super().delete(url)
        except GlimpseError as error:
            if status_of(error.__cause__) == 400:
                raise Conflict("The image's bytes are in use in the store.") from error
            raise

    def _ask(self) -> None:
        driver = self._product.driver()
        if driver.is_user_overriden():  # else nobody's token is here to ask with
            driver.get_cinderclient(self._caller).volumes.list(detailed=False, limit=1)


class _Device:
    """A volume that is attached while somebody reads it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held while it is attached and detached
        self.attached = ExitStack()
        self.file: Any = None
        self.readers = 0


class _Devices:
    """One attachment of a volume for all who read it in this process; `open` is for the driver's own way to open."""

    def __init__(self, attach: Callable[..., Any]) -> None:
        self._attach = attach
        self._lock = threading.Lock()
        self._devices: WeakValueDictionary[str, _Device] = WeakValueDictionary()

    @contextmanager
    def open(self, client: Any, volume: Any, mode: str) -> Iterator[Any]:
        """The volume as an open file. Each caller has asked Cinder for the volume before, and so may read it."""
        if mode != "rb":
            with self._attach(client, volume, mode) as file:
                yield file
            return
        with self._lock:
            device = self._devices.setdefault(volume.id, _Device())
        with device.lock:
            first = not device.readers
            if first:
                device.file = device.attached.enter_context(self._attach(client, volume, mode))
            device.readers += 1
        try:
            if isinstance(device.file, io.BufferedReader):
                with open(device.file.name, "rb") as file:
                    yield file
            elif first:
                yield device.file  # librbd's: it has one position, and is for one reader
            else:
                with self._attach(client, volume, mode) as file:
                    yield file
        finally:
            with device.lock:
                device.readers -= 1
                if not device.readers:
                    device.attached.close()


def status_of(error: BaseException | None) -> int:
    """The status that Cinder answered with, 0 for none: glance_store leaves it in the text of its errors only."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    _, found, status = str(error).rpartition("(HTTP ")
    return int(status[:3]) if found and status[:3].isdigit() else 0


def _give_own_session(driver: Any) -> None:
    """The driver's module has one session for the process; with it a second store would use the first's account."""
    module: Any = sys.modules[type(driver).__module__]
    make = driver.get_cinderclient
    own: Any = None

    def get_cinderclient(*args: Any, **kwargs: Any) -> Any:
        nonlocal own
        with _session_lock:  # nobody is asked anything in here
            module.CINDER_SESSION = own
            client = make(*args, **kwargs)
            own = module.CINDER_SESSION
            own.timeout = HTTP_SECONDS
            module.CINDER_SESSION = None
        return client

    driver.get_cinderclient = get_cinderclient
