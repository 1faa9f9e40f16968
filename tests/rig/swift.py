"""Swift, the object store: one device on this disk, and in front of it proxies with users of their own or of Keystone.

As the installation guides have it, but with one replica, one server of each kind and one process per server.
"""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from tests.rig.install import environment
from tests.rig.keystone import REGION, Keystone
from tests.rig.memcached import Memcached
from tests.rig.process import Process, ServerFailed, free_port, listens, plain_environment

USER = "images:keeper"  # account:user of the proxy that has its own users; the access key of its S3 interface too
KEY = "keeper-secret"
RESELLER_ROLE = "ResellerAdmin"  # who has it in Keystone may do anything in all accounts

_KINDS = ("account", "container", "object")
_RINGS = """
import sys
from swift.common.ring import RingBuilder

device = {"region": 1, "zone": 1, "ip": "127.0.0.1", "device": "disk", "weight": 1}
for number, (kind, port) in enumerate(zip(("account", "container", "object"), sys.argv[1:])):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev({**device, "id": 0, "port": int(port)})
    builder.rebalance()
    builder.get_ring().save(kind + ".ring.gz")
"""


class SwiftStorage:
    """What is behind every proxy: an account, a container and an object server, their rings, and a memcached."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "devices" / "disk").mkdir(parents=True)
        (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = rig\n")
        self.memcached = Memcached(folder / "memcached")
        self._ports = [free_port() for _ in _KINDS]
        home = environment("swift")
        command = [str(home / "bin" / "python"), "-c", _RINGS, *map(str, self._ports)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=plain_environment(), check=False)
        if done.returncode:
            raise ServerFailed(f"making rings ended with {done.returncode}\n{done.stderr}")
        self.processes = [self._server(kind, port) for kind, port in zip(_KINDS, self._ports, strict=True)]

    def _server(self, kind: str, port: int) -> Process:
        config = self.folder / f"{kind}-server.conf"
        config.write_text(
            f"{server_defaults(self.folder, port)}devices = {self.folder}/devices\nmount_check = false\n"
            f"disable_fallocate = true\n[pipeline:main]\npipeline = {kind}-server\n"
            f"[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
        program = environment("swift") / "bin" / f"swift-{kind}-server"
        # verbose: the log comes to standard output and not to syslog
        return Process(f"Swift's {kind} server", [program, config, "-v"], self.folder / f"{kind}.log")

    def start(self) -> None:
        """Start all of it. Raises `ServerFailed`."""
        self.memcached.start()
        for process in self.processes[:-1]:
            process.start(lambda: True)  # they come up side by side
        self.processes[-1].start(lambda: all(map(listens, self._ports)))

    def stop(self) -> None:
        """Stop all of it; objects stay."""
        for process in self.processes:
            process.stop()
        self.memcached.stop()


class Proxy:
    """A proxy server. `auth` names its filters that say who is who; `filters` are their sections."""

    def __init__(
        self,
        folder: Path,
        storage: SwiftStorage,
        auth: str,
        filters: str,
        large_objects: str = "slo dlo",
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        folder.mkdir()
        self.port = free_port()
        self._scheme = "http" if tls is None else "https"
        config = folder / "proxy-server.conf"
        config.write_text(
            server_defaults(storage.folder, self.port)
            + ("" if tls is None else f"cert_file = {tls[0]}\nkey_file = {tls[1]}\n")
            + f"[pipeline:main]\npipeline = catch_errors cache {auth} {large_objects} container-quotas account-quotas"
            " proxy-server\n"
            "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
            f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = {storage.memcached.address}\n"
            # parts of a deleted object would else go with the daemon that removes what has expired
            + "[filter:slo]\nuse = egg:swift#slo\nallow_async_delete = false\n"
            + "".join(f"[filter:{name}]\nuse = egg:swift#{name.replace('-', '_')}\n" for name in _PLAIN_FILTERS)
            + filters
        )
        program = environment("swift") / "bin" / "swift-proxy-server"
        self.process = Process("Swift's proxy", [program, config, "-v"], folder / "log")

    @property
    def url(self) -> str:
        """Its base, without /v1; the endpoint of its S3 interface as well."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it. Raises `ServerFailed`."""
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """Stop it, in the middle of whatever it does; objects stay."""
        self.process.kill9()


_PLAIN_FILTERS = ("catch_errors", "tempurl", "dlo", "container-quotas", "account-quotas")


class Swift(Proxy):
    """With one user of its own, `USER`, and an S3 interface: keys `USER` and `KEY`, us-east-1, path style."""

    def __init__(self, folder: Path, storage: SwiftStorage) -> None:
        account, user = USER.split(":")
        filters = (
            f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_{account}_{user} = {KEY} .admin\n"
            "[filter:s3api]\nuse = egg:swift#s3api\n"
        )
        super().__init__(folder, storage, "s3api tempurl tempauth", filters)


class KeystoneSwift(Proxy):
    """With the users of a Keystone, where it is the one object-store service: accounts AUTH_<project id>.

    Members and admins of a project may do anything in its account.
    """

    def __init__(
        self,
        folder: Path,
        storage: SwiftStorage,
        keystone: Keystone,
        large_objects: str = "slo dlo",
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        identity = "".join(f"{name} = {value}\n" for name, value in keystone.authtoken().items())
        filters = (
            "[filter:authtoken]\npaste.filter_factory = keystonemiddleware.auth_token:filter_factory\n"
            f"delay_auth_decision = true\ncache = swift.cache\nservice_token_roles = service\n"
            f"service_token_roles_required = true\n{identity}"
            "[filter:keystoneauth]\nuse = egg:swift#keystoneauth\noperator_roles = admin, member\n"
            f"reseller_admin_role = {RESELLER_ROLE}\n"
        )
        super().__init__(folder, storage, "tempurl authtoken keystoneauth", filters, large_objects, tls)
        self._keystone = keystone

    def account_url(self, project_id: str) -> str:
        """The storage URL of a project."""
        return f"{self.url}/v1/AUTH_{project_id}"

    def start(self) -> None:
        """Start it, and see that it is in Keystone's catalog. Raises `ServerFailed`, `requests.HTTPError`."""
        super().start()
        if not self._keystone.call("GET", "/services?type=object-store")["services"]:
            self._register()

    def _register(self) -> None:
        self._keystone.call("POST", "/roles", {"role": {"name": RESELLER_ROLE}})
        body = {"service": {"name": "swift", "type": "object-store"}}
        service = self._keystone.call("POST", "/services", body)["service"]
        for interface in ("public", "internal", "admin"):
            entry = {
                "service_id": service["id"],
                "interface": interface,
                "url": self.account_url("%(project_id)s"),
                "region_id": REGION,
            }
            self._keystone.call("POST", "/endpoints", {"endpoint": entry})


def server_defaults(swift_dir: Path, port: int) -> str:
    """The section [DEFAULT] of any of the servers."""
    return (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nswift_dir = {swift_dir}\n"
        f"user = {getpass.getuser()}\nlog_level = WARNING\n"
    )
