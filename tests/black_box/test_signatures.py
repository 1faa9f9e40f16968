"""Signed images against a real Barbican, which holds the certificates, and with the real client that signs."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec

from tests.black_box.cloud import WebServer
from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.journeys.content import MIB, noise
from tests.journeys.signing import Signer, dsa_key, ecdsa, rsa_pss
from tests.rig.barbican import Barbican
from tests.rig.clients import ClientFailed, Clients
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.process import wait_for
from tests.rig.services import Glimpse

DATA = noise(2 * MIB + 77)


@pytest.fixture
def service(
    glimpse_service: ServiceFactory[Glimpse],
    keystone: Keystone,
    memcached: Memcached,
    barbican: Barbican,
    service_folder: Path,
) -> Glimpse:
    """A service that says all that it has to say into its log."""
    return glimpse_service(
        {
            "DEFAULT": {"debug": True, "workers": 2},
            "os_glance_staging_store": {"filesystem_store_datadir": service_folder / "staging"},
            "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
            "paste_deploy": {"flavor": "keystone"},
            "keystone_authtoken": dict(keystone.authtoken(memcached.address)),
            "barbican": {"barbican_endpoint": barbican.url, "auth_endpoint": f"{keystone.url}/v3"},
        }
    )


class Owner:
    """A user with images and certificates."""

    def __init__(self, service: Glimpse, keystone: Keystone, barbican: Barbican, user: str) -> None:
        self.token = keystone.token(user, user)
        self.api = ImageApi(service.url, self.token)
        self._barbican = barbican

    def keep(self, payload: bytes, kind: str = "certificate") -> str:
        """Give Barbican something to keep; its UUID."""
        return self._barbican.keep(self.token, payload, kind)

    def upload(self, properties: dict[str, str], data: bytes = DATA) -> tuple[str, requests.Response]:
        """A new image with these properties, and what its upload was answered."""
        image = self.api.create(name="signed", disk_format="raw", container_format="bare", **properties)
        headers = {"Content-Type": "application/octet-stream"}
        return image, self.api.call("PUT", f"/v2/images/{image}/file", data=data, headers=headers)

    def refused(self, properties: dict[str, str], status: int, data: bytes = DATA) -> str:
        """The text of the refusal, after which the image is as new."""
        image, answer = self.upload(properties, data)
        assert answer.status_code == status, answer.text
        record = self.api.show(image)
        assert (record["status"], record["size"], record["checksum"]) == ("queued", None, None)
        assert self.api.call("GET", f"/v2/images/{image}/file").status_code == 204
        return answer.text


@pytest.fixture
def demo(service: Glimpse, keystone: Keystone, barbican: Barbican) -> Owner:
    return Owner(service, keystone, barbican, "demo")


@pytest.mark.parametrize("signer", [rsa_pss(), ecdsa(ec.SECP384R1()), dsa_key()], ids=lambda signer: signer.key_type)
def test_signatures_are_verified(demo: Owner, service: Glimpse, signer: Signer) -> None:
    properties = signer.properties(DATA, demo.keep(signer.pem))
    image, answer = demo.upload(properties)
    assert answer.status_code == 204, answer.text
    assert demo.api.show(image)["status"] == "active"
    assert demo.api.download(image) == DATA
    flipped = bytes([DATA[0] ^ 1]) + DATA[1:]
    assert "Signature verification failed" in demo.refused(properties, 400, flipped)
    kept = [path for path in service.data_dir.rglob("images/*") if path.is_file()]
    assert [path.name for path in kept] == [image]


def test_certificates_that_do_not_help(demo: Owner, service: Glimpse, keystone: Keystone, barbican: Barbican) -> None:
    signer, other = rsa_pss(), rsa_pss()
    wrong = signer.properties(DATA, demo.keep(other.pem))
    assert "Signature verification failed" in demo.refused(wrong, 400)
    unknown = signer.properties(DATA, "00000000-0000-4000-8000-000000000000")
    assert "has nothing" in demo.refused(unknown, 400)
    no_certificate = signer.properties(DATA, demo.keep(b"a passphrase of mine", "opaque"))
    assert "no X.509 certificate" in demo.refused(no_certificate, 400)
    # OSSN-0063: what one user may read helps no other, however close behind.
    mine = signer.properties(DATA, demo.keep(signer.pem))
    assert demo.upload(mine)[1].status_code == 204
    alt = Owner(service, keystone, barbican, "alt")
    assert "does not let" in alt.refused(mine, 400)
    assert "a passphrase of mine" not in service.logs
    for token in (demo.token, alt.token):
        assert token not in service.logs
    assert signer.pem.decode().splitlines()[1] not in service.logs


def test_one_property_less_is_no_signature(demo: Owner) -> None:
    properties = rsa_pss().properties(DATA, "00000000-0000-4000-8000-000000000000")
    del properties["img_signature_key_type"]
    image, answer = demo.upload(properties)
    assert answer.status_code == 204
    assert demo.api.show(image)["status"] == "active"


def imported(owner: Owner, properties: dict[str, str], data: bytes, method: str, web: WebServer) -> tuple[str, str]:
    """The status of an image after its import, and what its task says."""
    image = owner.api.create(name="signed", disk_format="raw", container_format="bare", **properties)
    how = {"name": method}
    if method == "glance-direct":
        octets = {"Content-Type": "application/octet-stream"}
        owner.api.ok("PUT", f"/v2/images/{image}/stage", data=data, headers=octets)
    else:
        how["uri"] = web.file("signed.img", data)
    owner.api.ok("POST", f"/v2/images/{image}/import", json={"method": how})

    def task() -> dict[str, str]:
        (found,) = owner.api.ok("GET", f"/v2/images/{image}/tasks").json()["tasks"]
        return dict(found)

    wait_for("the end of the import", lambda: task()["status"] in ("success", "failure"), 30)
    return owner.api.show(image)["status"], task()["message"]


@pytest.mark.parametrize("method", ["glance-direct", "web-download"])
def test_imports_are_verified(demo: Owner, service: Glimpse, service_folder: Path, method: str) -> None:
    """The certificate is looked up when the import is ordered, as the caller; a wrong signature fails the task."""
    (service_folder / "web").mkdir()
    web = WebServer(service_folder / "web")
    try:
        signer = rsa_pss()
        properties = signer.properties(DATA, demo.keep(signer.pem))
        assert imported(demo, properties, DATA, method, web)[0] == "active"
        status, message = imported(demo, properties, DATA[:-1] + b"?", method, web)
        assert (status, "Signature verification failed" in message) == ("queued", True)
    finally:
        web.close()
    assert len([path for path in service.data_dir.rglob("images/*") if path.is_file()]) == 1


def test_an_import_without_its_certificate(demo: Owner) -> None:
    """It is refused when it is ordered; the staged bytes stay."""
    properties = rsa_pss().properties(DATA, "00000000-0000-4000-8000-000000000000")
    image = demo.api.create(name="signed", disk_format="raw", container_format="bare", **properties)
    octets = {"Content-Type": "application/octet-stream"}
    demo.api.ok("PUT", f"/v2/images/{image}/stage", data=DATA, headers=octets)
    answer = demo.api.call("POST", f"/v2/images/{image}/import", json={"method": {"name": "glance-direct"}})
    assert answer.status_code == 400
    assert "has nothing" in answer.text
    assert demo.api.show(image)["status"] == "uploading"


def test_as_the_user_guide_says(
    demo: Owner, service: Glimpse, keystone: Keystone, clients: Clients, tmp_path: Path
) -> None:
    """Signed by openssl, created by the client (its own --sign-key-path writes a signature that nobody can read)."""
    signer = rsa_pss()
    key, content, signature = (tmp_path / name for name in ("key.pem", "content", "signature"))
    key.write_bytes(signer.private_pem)
    content.write_bytes(DATA)
    sign = ["openssl", "dgst", "-sha256", "-sign", key, "-sigopt", "rsa_padding_mode:pss", "-out", signature, content]
    subprocess.run(sign, check=True)
    properties = {
        "img_signature": base64.b64encode(signature.read_bytes()).decode(),
        "img_signature_certificate_uuid": demo.keep(signer.pem),
        "img_signature_hash_method": "SHA-256",
        "img_signature_key_type": "RSA-PSS",
    }
    given = [part for name, value in properties.items() for part in ("--property", f"{name}={value}")]
    keystone.register_image_service(service.url)
    try:
        env = keystone.openrc("demo", "demo")
        clients.openstack("image", "create", "--file", content, "--disk-format", "raw", *given, "mine", env=env)
        with pytest.raises(ClientFailed, match="Bad Request"):
            clients.openstack("image", "create", "--file", key, "--disk-format", "raw", *given, "other", env=env)
    finally:
        keystone.forget_image_service()
    (image,) = demo.api.images("?name=mine")
    assert image["status"] == "active"


def test_barbican_away(demo: Owner, barbican: Barbican) -> None:
    """503, and the same upload works when it is back; what is not signed does not notice."""
    signer = rsa_pss()
    properties = signer.properties(DATA, demo.keep(signer.pem))
    barbican.stop()
    try:
        assert "key manager" in demo.refused(properties, 503)
        assert demo.upload({})[1].status_code == 204
    finally:
        barbican.start()
    assert demo.upload(properties)[1].status_code == 204
