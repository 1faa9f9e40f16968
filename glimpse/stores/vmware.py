"""Store `vmware`: images as files in datastores of a vCenter or ESX host. Glance has deprecated it.

glance_store's driver overwrites the file of an image that is there: so the datastores are asked before. What is in the
store's directory under the image's id, in any of them, is the image's.
"""

from __future__ import annotations

from collections.abc import Sequence

from oslo_utils import netutils

from glimpse.errors import NotFound, Unconfigured
from glimpse.stores.adapter import AdaptedStore

NEEDED = ("vmware_server_host", "vmware_server_username", "vmware_server_password", "vmware_datastores")


class VmwareStore(AdaptedStore):
    """An `AdaptedStore`."""

    package = "glance_store[vmware]"
    schemes = ("vsphere",)

    def _require(self, where: str) -> None:
        try:
            import oslo_vmware.api  # noqa: F401 - the driver does without, until it is to be used
        except ImportError as error:
            raise Unconfigured(
                f"{where}: a store of type vmware needs the Python module {error.name}; pip install {self.package!r}"
            ) from error
        for name in NEEDED:
            if not self._options[name]:
                raise Unconfigured(f"{where} {name} is not set, and a store of type vmware needs it")

    def _prefix(self) -> str | None:
        return f"vsphere://{netutils.escape_ipv6(self._options['vmware_server_host'])}/folder/{self._folder}/"

    @property
    def _folder(self) -> str:
        folder: str = self._options["vmware_store_image_dir"]
        return folder.strip("/")

    def _kept(self, image_id: str) -> Sequence[str]:
        driver = self._product.driver()
        found = []
        for datastore in (each for weight in driver.datastores.values() for each in weight):
            location = driver.get_store_location_class()(
                {"server_host": self._options["vmware_server_host"], "image_dir": self._folder, "image_id": image_id,
                 "datacenter_path": datastore.datacenter.path, "datastore_name": datastore.name},
                driver.conf, backend_group=driver.backend_group,
            )  # fmt: skip
            url: str = location.get_uri()
            try:
                driver.get_size(self._product.location(url))
            except Exception as error:
                if not isinstance(self._meaning(error), NotFound):
                    raise
            else:
                found.append(url)
        return found
