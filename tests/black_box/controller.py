"""The controller node that an install guide speaks of: its shell, its /etc, its services, made of the rig's parts.

A guide's commands and files are used as the guide has them; only what belongs to the guide's machine is put in terms of
this one: host names, ports, folders, and the user of the service (here the one who runs the tests).
"""

from __future__ import annotations

import getpass
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.black_box.terminal import at_terminal
from tests.rig.clients import Clients
from tests.rig.databases import MariaDB
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import ImageService

GUIDES = Path(__file__).parent / "guides"
HOSTS = ("192.168.56.101", "10.0.0.11", "controller01", "controller", "mncsvrt06")


class StepFailed(Exception):
    """A guide's command ended with an error; the text has the command and what it printed."""


class Controller:
    """A fresh controller with database server, memcached and Keystone, and the Image service's programs installed."""

    def __init__(
        self, mariadb: MariaDB, memcached: Memcached, keystone: Keystone, clients: Clients, service: ImageService
    ) -> None:
        self._mariadb = mariadb
        self._keystone = keystone
        self.service = service
        self.home = service.config_dir.parent / "home"
        self.home.mkdir()
        (self.home / ".glance").symlink_to(service.config_dir)
        self.images = service.data_dir / "images"
        self.env = {**service.env, "HOME": str(self.home), "PATH": f"{clients.bin}:{service.env['PATH']}"}
        ports = {5000: keystone.port, 35357: keystone.port, 11211: memcached.port, 9292: service.port}
        self._words = [
            *((rf"\b{re.escape(host)}\b", "127.0.0.1") for host in HOSTS),
            (r"@127\.0\.0\.1/glance", f"@127.0.0.1:{mariadb.port}/glance"),
            *((rf"127\.0\.0\.1:{theirs}\b", f"127.0.0.1:{ours}") for theirs, ours in ports.items()),
            (r"/var/lib/glance\b", str(service.data_dir)),
            (r"/etc/glance\b", str(service.config_dir)),
            (r"\bsudo -s\b", "su -s"),  # what a guide that writes this must mean
            (r"\bsudo ", ""),
            (r'^su -s /bin/sh -c "(.*)" glance$', rf'su -s /bin/sh -c "\1" {getpass.getuser()}'),
        ]
        if os.geteuid() != 0:
            self._words.append((r'^su -s /bin/sh -c "(.*)" \S+$', r'/bin/sh -c "\1"'))

    def local(self, text: str) -> str:
        """A guide's text in terms of this machine."""
        for pattern, ours in self._words:
            text = re.sub(pattern, ours, text, flags=re.MULTILINE)
        return text

    def prepare(self, root_password: str, rc_file: str) -> None:
        """What guides take for granted: no image service yet, the password of the database's root, the admin's file."""
        self._keystone.forget_image_service()
        self._mariadb.execute(
            "DROP DATABASE IF EXISTS glance",
            "DROP USER IF EXISTS 'glance'@'localhost', 'glance'@'%'",
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{root_password}'",
        )
        client = [f"socket={self._mariadb.socket}", f"port={self._mariadb.port}", f"password={root_password}"]
        (self.home / ".my.cnf").write_text("\n".join(["[client]", *client, ""]))
        exports = [f"export {name}={value}" for name, value in self._keystone.openrc().items()]
        (self.home / rc_file).write_text("\n".join([*exports, ""]))

    def restore(self) -> None:
        """Give the database's root and Keystone back as they were."""
        self._mariadb.execute("ALTER USER 'root'@'localhost' IDENTIFIED BY ''")
        self._keystone.forget_image_service()

    def shell(self, script: str, typed: str = "") -> str:
        """Run a guide's commands in the home folder; their output of both kinds. `typed` is their standard input.

        Raises `StepFailed`.
        """
        script = self.local(script)
        done = subprocess.run(
            ["/bin/bash", "-ec", script],
            cwd=self.home,
            env=self.env,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise StepFailed(f"{script}\nended with {done.returncode}\n{done.stdout}")
        return done.stdout

    def dialogue(self, script: str, *answers: tuple[str, str]) -> str:
        """Run a guide's command at a terminal and answer its questions. Raises `TerminalFailed`."""
        return at_terminal(["/bin/bash", "-ec", self.local(script)], self.env, self.home, answers)

    def write(self, name: str, changes: Mapping[str, str] | None = None, source: str = "") -> None:
        """Put the guide's file tests/black_box/guides/`source` at /etc/glance/`name`, with the changes it asks for."""
        text = (GUIDES / (source or name)).read_text()
        for theirs, ours in (changes or {}).items():
            assert theirs in text
            text = text.replace(theirs, ours)
        (self.service.config_dir / name).write_text(self.local(text))

    def create_user(self, rc_file: str, password: str) -> None:
        """Make Keystone's user for the service, with the password typed twice as all guides do it but one."""
        self.dialogue(
            f". {rc_file}; openstack user create --domain default --password-prompt glance",
            ("User Password:", password),
            ("Repeat User Password:", password),
        )

    def create_endpoints(self, rc_file: str, url: str) -> None:
        """Make the three endpoints of the service."""
        for interface in ("public", "internal", "admin"):
            self.shell(f". {rc_file}; openstack endpoint create --region RegionOne image {interface} {url}")
