"""Signed images against a real Barbican, which holds the certificates, and with the real client that signs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.journeys.content import MIB, noise
from tests.journeys.signing import Signer, dsa_key, ecdsa, rsa_pss
from tests.rig.barbican import Barbican
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import Glimpse

DATA = noise(2 * MIB + 77)


@pytest.fixture
def service(
    glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, memcached: Memcached, barbican: Barbican
) -> Iterator[Glimpse]:
    """A service that says all that it has to say into its log."""
    yield glimpse_service(
        {
            "DEFAULT": {"debug": True, "workers": 1},
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
