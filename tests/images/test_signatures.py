"""Signatures of images, without a key manager: tests/black_box/test_signatures.py has a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from castellan import key_manager
from cryptography.hazmat.primitives.asymmetric import ec

from glimpse.domain.context import Context
from glimpse.domain.record import Image
from glimpse.errors import BadRequest, SettingsError, Unavailable
from glimpse.images import signatures as module
from glimpse.images.passage import Passage
from glimpse.images.signatures import (
    PROPERTIES,
    Certificate,
    Claim,
    Signatures,
    Verifier,
    check_key_manager,
    claim_of,
    verifier_of,
)
from glimpse.settings import Settings, load
from tests.journeys.content import MIB, noise
from tests.journeys.signing import Signer, dsa_key, ecdsa, rsa_pss

ID = "12345678-1234-1234-1234-123456789abc"
DATA = noise(100_000)
SOMEBODY = Context(token="t" * 32, project_id="p", user_id="u")

SIGNERS = {"RSA": rsa_pss(), "P-384": ecdsa(ec.SECP384R1()), "P-521": ecdsa(ec.SECP521R1()), "DSA": dsa_key()}


def settings_for(folder: Path, more: str = "") -> Settings:
    conf = folder / "glance-api.conf"
    conf.write_text(f"[database]\nconnection = sqlite:///{folder}/db\n{more}")
    return load(["--config-file", str(conf)])


def claimed(properties: dict[str, str]) -> Claim:
    claim = claim_of(properties)
    assert claim is not None
    return claim


def verifier_for(signer: Signer, data: bytes = DATA, certificate: bytes | None = None) -> Verifier:
    return verifier_of(claimed(signer.properties(data, ID)), Certificate(ID, certificate or signer.der))


@pytest.mark.parametrize("hash_method", ["SHA-224", "SHA-256", "SHA-384", "SHA-512"])
@pytest.mark.parametrize("name", SIGNERS)
def test_a_good_signature(name: str, hash_method: str) -> None:
    signer = SIGNERS[name]
    verifier = verifier_of(claimed(signer.properties(DATA, ID, hash_method)), Certificate(ID, signer.der))
    for start in range(0, len(DATA), 30_000):
        verifier.update(DATA[start : start + 30_000])
    verifier.verify()


@pytest.mark.parametrize("name", SIGNERS)
def test_a_flipped_bit(name: str) -> None:
    """OSSN-0061: every byte counts, not a checksum of them."""
    for position in (0, 50_000, len(DATA) - 1):
        data = bytearray(DATA)
        data[position] ^= 1
        verifier = verifier_for(SIGNERS[name])
        verifier.update(bytes(data))
        with pytest.raises(BadRequest, match="failed"):
            verifier.verify()


@pytest.mark.parametrize("name", SIGNERS)
def test_bytes_that_are_missing(name: str) -> None:
    for data in (b"", DATA[:-1], DATA + b"\0"):
        verifier = verifier_for(SIGNERS[name])
        verifier.update(data)
        with pytest.raises(BadRequest, match="failed"):
            verifier.verify()


def test_a_certificate_of_somebody_else() -> None:
    verifier = verifier_for(SIGNERS["RSA"], certificate=rsa_pss().der)
    verifier.update(DATA)
    with pytest.raises(BadRequest, match="failed"):
        verifier.verify()


def test_a_certificate_of_another_kind() -> None:
    with pytest.raises(BadRequest, match="RSA-PSS"):
        verifier_for(SIGNERS["RSA"], certificate=SIGNERS["DSA"].der)
    for nonsense in (b"no certificate", b"", SIGNERS["RSA"].pem):
        with pytest.raises(BadRequest, match=r"no X\.509"):
            verifier_of(claimed(SIGNERS["RSA"].properties(DATA, ID)), Certificate(ID, nonsense))


def test_a_certificate_that_was_looked_up_for_another_claim() -> None:
    """An import looks it up when it is ordered; the image may be changed meanwhile."""
    signer = SIGNERS["RSA"]
    kept = Certificate.from_json(Certificate(ID.replace("1", "2"), signer.der).as_json())
    for certificate in (kept, None):
        with pytest.raises(BadRequest, match="another one"):
            verifier_of(claimed(signer.properties(DATA, ID)), certificate)


def test_three_properties_are_no_signature() -> None:
    """As in Glance: an image is signed when it has all four."""
    for missing in PROPERTIES:
        properties = SIGNERS["RSA"].properties(DATA, ID)
        del properties[missing]
        assert claim_of(properties) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("img_signature", ""),
        ("img_signature", "abc"),
        ("img_signature", "ü"),
        ("img_signature", "=="),
        ("img_signature_hash_method", "MD5"),  # OSSN-0061
        ("img_signature_hash_method", "sha-256"),
        ("img_signature_hash_method", ""),
        ("img_signature_key_type", "RSA"),
        ("img_signature_key_type", ""),
        ("img_signature_certificate_uuid", ""),
        ("img_signature_certificate_uuid", "x"),
        ("img_signature_certificate_uuid", f"../orders/{ID}"),
        ("img_signature_certificate_uuid", f"{ID}/payload?"),
        ("img_signature_certificate_uuid", f"http://127.0.0.1/{ID}"),
        ("img_signature_certificate_uuid", f"{ID}\n"),
    ],
)
def test_claims_that_cannot_be_meant(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match="img_signature"):
        claim_of({**SIGNERS["RSA"].properties(DATA, ID), name: value})
    with pytest.raises(BadRequest):
        claim_of({**SIGNERS["RSA"].properties(DATA, ID), name: None})


def test_a_uuid_without_dashes() -> None:
    """As the vault keeps them."""
    assert claimed(SIGNERS["RSA"].properties(DATA, ID.replace("-", ""))).certificate_id == ID.replace("-", "")


NOW = datetime(2026, 1, 1)
IMAGE = Image(ID, "saving", "private", NOW, NOW, disk_format="raw", container_format="bare")


async def through(settings: Settings, data: bytes, verifier: Verifier) -> bytes:
    """What a store would get."""
    alive: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(60))

    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), MIB):
            yield data[start : start + MIB]

    passage = Passage(settings, IMAGE, len(data), None, alive, verifier)
    try:
        return b"".join([block async for block in passage.through(blocks())])
    finally:
        alive.cancel()


@pytest.mark.parametrize("size", [10, 3 * MIB + 5])
async def test_on_the_way_into_a_store(tmp_path: Path, size: int) -> None:
    """The stream does not end well when the signature is wrong, so no store publishes it."""
    settings, data = settings_for(tmp_path), noise(size)
    assert await through(settings, data, verifier_for(SIGNERS["RSA"], data)) == data
    with pytest.raises(BadRequest, match="Signature verification failed"):
        await through(settings, data[:-1] + b"?", verifier_for(SIGNERS["RSA"], data))


def test_a_configuration_that_makes_no_sense(tmp_path: Path) -> None:
    check_key_manager(settings_for(tmp_path).conf)
    with pytest.raises(SettingsError, match=r"\[key_manager\]"):
        check_key_manager(settings_for(tmp_path, "[key_manager]\nbackend = no.such.Thing\n").conf)
    with pytest.raises(SettingsError, match=r"\[key_manager\]"):
        check_key_manager(settings_for(tmp_path, "[barbican]\nverify_ssl = perhaps\n").conf)


@pytest.mark.parametrize("backend", ["barbican", "vault"])
async def test_a_key_manager_that_is_away(tmp_path: Path, backend: str) -> None:
    away = "http://127.0.0.1:9"
    settings = settings_for(
        tmp_path,
        f"[key_manager]\nbackend = {backend}\n[barbican]\nbarbican_endpoint = {away}\nauth_endpoint = {away}/v3\n"
        f"[vault]\nvault_url = {away}\nroot_token_id = x\n",
    )
    asked = Signatures(settings)
    with pytest.raises(Unavailable, match="key manager") as caught:
        await asked.certificate(SOMEBODY, ID)
    assert caught.value.headers["Retry-After"]
    asked.close()


async def test_a_key_manager_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on, and the caller does not wait for ever."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(key_manager, "API", lambda conf: time.sleep(1))
    asked = Signatures(settings_for(tmp_path))
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await asked.certificate(SOMEBODY, ID)
    assert time.monotonic() - began < 0.9
    asked.close()


async def test_nobody_is_asked_for_what_is_not_signed(tmp_path: Path) -> None:
    asked = Signatures(settings_for(tmp_path))
    assert await asked.verifier(Context(), IMAGE) is None
    asked.close()
