"""People who sign images: a key, its certificate, and the properties that say so."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.x509.oid import NameOID

HASHES: dict[str, hashes.HashAlgorithm] = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}

Key = rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey
Sign = Callable[[bytes, hashes.HashAlgorithm], bytes]


@dataclass(frozen=True)
class Signer:
    """A key of some type, with a certificate of its own."""

    key_type: str
    key: Key
    sign: Sign
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        """The certificate as a key manager hands it out through castellan."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate as one gives it to Barbican."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def private_pem(self) -> bytes:
        """The key as its owner has it in a file."""
        form = serialization.PrivateFormat.TraditionalOpenSSL
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    def properties(self, data: bytes, certificate_id: str, hash_method: str = "SHA-256") -> dict[str, str]:
        """The properties of an image with those bytes."""
        return {
            "img_signature": base64.b64encode(self.sign(data, HASHES[hash_method])).decode(),
            "img_signature_hash_method": hash_method,
            "img_signature_key_type": self.key_type,
            "img_signature_certificate_uuid": certificate_id,
        }


def _certified(key: Key) -> x509.Certificate:
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")]), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def rsa_pss() -> Signer:
    """What most people have."""
    key = rsa.generate_private_key(65537, 2048)

    def sign(data: bytes, method: hashes.HashAlgorithm) -> bytes:
        return key.sign(data, padding.PSS(padding.MGF1(method), padding.PSS.MAX_LENGTH), method)

    return Signer("RSA-PSS", key, sign, _certified(key))


def ecdsa(curve: ec.EllipticCurve) -> Signer:
    """With a key on an elliptic curve."""
    key = ec.generate_private_key(curve)
    sign: Sign = lambda data, method: key.sign(data, ec.ECDSA(method))  # noqa: E731
    return Signer(f"ECC_{curve.name.upper()}", key, sign, _certified(key))


def dsa_key() -> Signer:
    """As in the old days."""
    key = dsa.generate_private_key(2048)
    return Signer("DSA", key, key.sign, _certified(key))
