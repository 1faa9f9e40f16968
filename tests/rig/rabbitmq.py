"""RabbitMQ, where notifications go, and a consumer that collects them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import kombu

from tests.rig.install import program
from tests.rig.process import Process, free_port, listens, own, plain_environment

USER = "rig"
PASSWORD = "rig-secret"
EXCHANGE = "glance"
PRIORITIES = ("info", "error")

# Debian puts a wrapper on the path that changes the user, and writes to /var/log.
_DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitMQ:
    """A RabbitMQ node with an epmd of its own, so that it neither finds nor disturbs another one on this machine."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        user = "rabbitmq" if os.geteuid() == 0 else None
        home = own(own(folder, user) / "home", user)
        epmd_port = free_port()
        config = folder / "rabbitmq.conf"
        self.certificate = folder / "certificate.pem"
        self.tls_port = free_port()
        key = certify(self.certificate, user)
        config.write_text(
            f"default_user = {USER}\ndefault_pass = {PASSWORD}\nlog.console.level = warning\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\nssl_options.keyfile = {key}\n"
            f"ssl_options.certfile = {self.certificate}\nssl_options.cacertfile = {self.certificate}\n"
        )
        plugins = folder / "enabled_plugins"
        plugins.write_text("[].\n")
        env = plain_environment(
            HOME=str(home),
            ERL_EPMD_ADDRESS="127.0.0.1",
            ERL_EPMD_PORT=str(epmd_port),
            RABBITMQ_NODENAME=f"glimpse{self.port}@localhost",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.port),
            RABBITMQ_DIST_PORT=str(free_port()),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
            RABBITMQ_MNESIA_BASE=str(own(folder / "data", user)),
            RABBITMQ_LOG_BASE=str(own(folder / "logs", user)),
            RABBITMQ_LOGS="-",
            RABBITMQ_ALLOW_INPUT="1",  # without a shell between us and the signals that it gets
            RABBITMQ_CONFIG_FILE=str(config),
            RABBITMQ_CONF_ENV_FILE=str(folder / "absent"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(plugins),
        )
        self._epmd_port = epmd_port
        self._epmd = Process("epmd", [program("epmd")], folder / "epmd.log", env=env, user=user)
        self.process = Process(
            "RabbitMQ",
            [_DEBIAN if _DEBIAN.exists() else program("rabbitmq-server"), "-noinput"],
            folder / "log",
            env=env,
            user=user,
        )

    @property
    def url(self) -> str:
        """As in the option `transport_url`."""
        return f"rabbit://{USER}:{PASSWORD}@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        """The same over TLS; `certificate` is its own authority, for 127.0.0.1."""
        return f"rabbit://{USER}:{PASSWORD}@127.0.0.1:{self.tls_port}/"

    def start(self) -> None:
        """Start it; what was queued is gone. Raises `ServerFailed`."""
        if not self._epmd.running:
            self._epmd.start(lambda: listens(self._epmd_port))
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()
        self._epmd.stop()

    def kill9(self) -> None:
        """End it without a goodbye."""
        self.process.kill9()


def certify(certificate: Path, user: str | None) -> Path:
    """Make a certificate for 127.0.0.1 that signs itself; where its key is."""
    key = certificate.with_name("key.pem")
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=rig",
         "-addext", "subjectAltName = IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    if user is not None:
        shutil.chown(key, user)
    return key


class Listener:
    """Takes events from the queues that oslo.messaging makes at the broker, so none is missed, whoever came first."""

    def __init__(self, broker: RabbitMQ, topic: str = "notifications") -> None:
        self._url = broker.url.replace("rabbit:", "amqp:")
        self._queues = [f"{topic}.{priority}" for priority in PRIORITIES]

    def take(self) -> list[dict[str, Any]]:
        """The events that wait now, in the order of their times."""
        found = []
        with kombu.Connection(self._url, connect_timeout=5) as connection:
            for name in self._queues:
                queue = kombu.Queue(name, kombu.Exchange(EXCHANGE, "topic", durable=False), name, durable=False)
                bound = queue(connection.channel())
                bound.declare()
                while (message := bound.get(no_ack=True)) is not None:
                    found.append(_event(message.decode()))
        return sorted(found, key=lambda event: str(event["timestamp"]))

    def wait_for(self, count: int, seconds: float = 20) -> list[dict[str, Any]]:
        """As many events as that. Raises `TimeoutError` when they do not come."""
        end = time.monotonic() + seconds
        found = self.take()
        while len(found) < count:
            if time.monotonic() > end:
                kinds = [event["event_type"] for event in found]
                raise TimeoutError(f"{len(found)} of {count} events within {seconds:.0f} s: {kinds}")
            time.sleep(0.1)
            found += self.take()
        return sorted(found, key=lambda event: str(event["timestamp"]))


def _event(body: Any) -> dict[str, Any]:
    """What is inside of the envelope of messagingv2, or the bare message of messaging."""
    event = json.loads(body["oslo.message"]) if "oslo.message" in body else body
    return dict(event)
