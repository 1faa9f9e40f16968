"""Signed images: the bytes are held against a signature among the properties, by a certificate of the key manager.

An image with all four properties of `PROPERTIES` becomes active only when the signature fits its bytes. The signature
covers the bytes themselves, not their checksum (OSSN-0061). What is signed how is cursive's; the certificate comes from
castellan's key manager, asked as the caller who sends the bytes, whose identity is kept nowhere (OSSN-0063).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from castellan import key_manager
from castellan.common import exception as castellan_errors
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cursive import signature_utils
from cursive.exception import SignatureVerificationError
from oslo_config import cfg
from oslo_context.context import RequestContext

from glimpse.access.waiting import WaitingThreads
from glimpse.domain.context import Context
from glimpse.domain.record import Image
from glimpse.errors import BadRequest, GlimpseError, SettingsError, Unavailable
from glimpse.settings import Settings

LOG = logging.getLogger(__name__)

PROPERTIES = ("img_signature", "img_signature_hash_method", "img_signature_key_type", "img_signature_certificate_uuid")

THREADS = 8  # per worker
PATIENCE = 60.0  # seconds for an answer of the key manager

# It becomes part of a path at the key manager: nothing but a UUID may.
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Claim:
    """What an image says of its signature, understood but not yet believed."""

    signature: bytes
    hash_method: Any
    key_type: signature_utils.SignatureKeyType
    certificate_id: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of the key manager, in DER."""

    id: str
    der: bytes

    def as_json(self) -> dict[str, str]:
        """As the input of a task keeps it; it is public."""
        return {"id": self.id, "der": base64.b64encode(self.der).decode()}

    @classmethod
    def from_json(cls, values: Mapping[str, str]) -> Certificate:
        """The opposite of `as_json`."""
        return cls(values["id"], base64.b64decode(values["der"]))


class Verifier:
    """Takes the bytes of an image one after the other, and then says whether the signature is theirs."""

    def __init__(self, verifier: Any) -> None:
        self._verifier = verifier

    def update(self, block: bytes) -> None:
        """The next bytes."""
        self._verifier.update(block)

    def verify(self) -> None:
        """The last word. Raises `BadRequest`."""
        try:
            self._verifier.verify()
        except (InvalidSignature, ValueError, UnsupportedAlgorithm) as error:
            raise BadRequest("Signature verification failed: the signature is not that of these bytes.") from error


def claim_of(properties: Mapping[str, str | None]) -> Claim | None:
    """What the properties of an image claim; None when one of the four is missing. Raises `BadRequest`."""
    if not all(name in properties for name in PROPERTIES):
        return None
    signature, hash_method, key_type, certificate_id = (properties[name] or "" for name in PROPERTIES)
    if not _UUID.fullmatch(certificate_id):
        raise BadRequest("img_signature_certificate_uuid is no UUID.")
    try:
        claim = Claim(
            signature_utils.get_signature(signature),
            signature_utils.get_hash_method(hash_method),
            signature_utils.SignatureKeyType.lookup(key_type),
            certificate_id,
        )
    except (SignatureVerificationError, ValueError) as error:
        raise BadRequest(f"The img_signature properties cannot be used: {error}") from error
    if not claim.signature:
        raise BadRequest("img_signature is empty.")
    return claim


def verifier_of(claim: Claim, certificate: Certificate | None) -> Verifier:
    """Holds bytes against a claim. Raises `BadRequest`, also for another certificate than the claim's, or none."""
    if certificate is None or certificate.id != claim.certificate_id:
        raise BadRequest("The certificate of the image's signature was not looked up, or is another one by now.")
    try:
        public_key = x509.load_der_x509_certificate(certificate.der).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadRequest("What img_signature_certificate_uuid names is no X.509 certificate.") from error
    if not isinstance(public_key, claim.key_type.public_key_type):
        raise BadRequest(f"The certificate's key is not of the type {claim.key_type.name}.")
    return Verifier(claim.key_type.create_verifier(claim.signature, claim.hash_method, public_key))


def check_key_manager(conf: cfg.ConfigOpts) -> None:
    """The sections [key_manager], [barbican] and [vault] must make sense to castellan. Raises `SettingsError`."""
    try:
        key_manager.API(conf)
    except Exception as error:  # each backend has its own; none has connected anywhere yet
        raise SettingsError(f"[key_manager]: {' '.join(str(error).split())}") from error


class Uncertified(Exception):
    """An image is signed, and nobody has asked yet for the certificate."""

    def __init__(self, certificate_id: str) -> None:
        super().__init__(certificate_id)
        self.certificate_id = certificate_id


class Signatures:
    """The way to the key manager, for one process."""

    def __init__(self, settings: Settings) -> None:
        self._conf = settings.conf
        self._threads = WaitingThreads("key-manager", THREADS, "the key manager")

    def close(self) -> None:
        """Ask no more."""
        self._threads.close()

    async def verifier(self, context: Context, image: Image) -> Verifier | None:
        """What the image's bytes must be shown to; None for an image without a signature.

        Raises `BadRequest` for a signature that nothing can fit, `Unavailable` when the key manager does not answer.
        """
        claim = claim_of(image.properties)
        return None if claim is None else verifier_of(claim, await self.certificate(context, claim.certificate_id))

    async def certificate(self, context: Context, certificate_id: str) -> Certificate:
        """A certificate, if the caller may read it. Raises `BadRequest`, `Unavailable`."""
        try:
            async with asyncio.timeout(PATIENCE):
                return Certificate(certificate_id, await self._threads.run(self._fetch, context, certificate_id))
        except TimeoutError as error:
            raise _away() from error

    def _fetch(self, context: Context, certificate_id: str) -> bytes:
        # Everything is new for each call, so that nothing of one caller can be left for another.
        caller = RequestContext(
            auth_token=context.token,
            user_id=context.user_id,
            project_id=context.project_id,
            overwrite=False,
        )
        try:
            found = key_manager.API(self._conf).get(caller, certificate_id)
            if found.format not in signature_utils.CERTIFICATE_FORMATS:
                raise BadRequest("What img_signature_certificate_uuid names is no X.509 certificate.")
            return found.get_encoded() or b""
        except GlimpseError:
            raise
        except Exception as error:  # castellan lets those of its backends and of Keystone through
            raise _translated(error) from error


def _translated(error: Exception) -> GlimpseError:
    reasons = list(_reasons(error))
    statuses = {getattr(reason, "status_code", None) or getattr(reason, "http_status", None) for reason in reasons}
    if any(isinstance(reason, castellan_errors.ManagedObjectNotFoundError) for reason in reasons):
        return BadRequest("The key manager has nothing under img_signature_certificate_uuid.")
    if any(isinstance(reason, castellan_errors.Forbidden) for reason in reasons) or statuses & {401, 403}:
        return BadRequest("The key manager does not let the caller read the certificate.")
    if isinstance(error, ValueError):
        return BadRequest("What img_signature_certificate_uuid names is no X.509 certificate.")
    # Of the reason only the kind: its text may hold what the key manager keeps.
    LOG.error("the key manager does not answer: %s", ", ".join(type(reason).__name__ for reason in reasons))
    return _away()


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _away() -> Unavailable:
    return Unavailable("The key manager does not answer; try again in a moment.", {"Retry-After": "5"})
