"""URLs of locations as the database keeps them: as they are, or encrypted where `metadata_encryption_key` is set.

The text is Glance's, so either service reads what the other wrote: base64 for URLs (RFC 4648, 5) of 16 bytes that
begin the chain, and AES-CBC of the URL, a zero byte, and random other bytes up to a whole block.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from sqlalchemy.engine import Connection

from glimpse.domain.record import Image, Location
from glimpse.errors import Unavailable

LOG = logging.getLogger(__name__)

KEY = "location_key"  # the execution option of an engine whose connections have one
_BLOCK = 16  # bytes of AES
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)


def seal(connection: Connection, url: str) -> str:
    """The text that the database keeps for this URL: another one each time, where there is a key."""
    key = _key(connection)
    return url if key is None else encrypted(key, url)


def unseal(connection: Connection, text: str) -> str:
    """The URL behind a text of the database. One from before there was a key is read as it is.

    Raises `Unavailable` where the key is not the one that it was written with.
    """
    url = readable(connection, text)
    if _key(connection) is not None and not _URL.fullmatch(url):
        LOG.error("a location cannot be decrypted: metadata_encryption_key is not the one that it was written with")
        raise Unavailable("The locations of the image cannot be read.")
    return url


def readable(connection: Connection, text: str) -> str:
    """The URL behind a text of the database, or the text where the key is not the one that it was written with."""
    key = _key(connection)
    if key is None or _URL.fullmatch(text):
        return text
    return decrypted(key, text) or text


def unsealed(connection: Connection, image: Image | None) -> Image | None:
    """The image with its URLs in the clear. Raises `Unavailable`."""
    if image is None or not image.locations or _key(connection) is None:
        return image
    return image.with_(
        locations=tuple(
            Location(unseal(connection, each.url), each.metadata, each.status, each.id) for each in image.locations
        )
    )


def _key(connection: Connection) -> bytes | None:
    key: bytes | None = connection.get_execution_options().get(KEY)
    return key


def encrypted(key: bytes, url: str) -> str:
    """The URL under this key of 16, 24 or 32 bytes."""
    start, plain = secrets.token_bytes(_BLOCK), url.encode()
    padding = bytes(secrets.randbelow(255) + 1 for _ in range(_BLOCK - 1 - len(plain) % _BLOCK))
    encryptor = Cipher(AES(key), CBC(start)).encryptor()
    return base64.urlsafe_b64encode(start + encryptor.update(plain + b"\0" + padding) + encryptor.finalize()).decode()


def decrypted(key: bytes, text: str) -> str | None:
    """The URL in a text of `encrypted`, or of Glance; None when it is none under this key."""
    try:
        # The usual function passes over letters that are none of the alphabet.
        data = base64.b64decode(text, altchars=b"-_", validate=True)
        decryptor = Cipher(AES(key), CBC(data[:_BLOCK])).decryptor()
        padded = decryptor.update(data[_BLOCK:]) + decryptor.finalize()
        plain, zero, padding = padded.rpartition(b"\0")
        url = plain.decode()
    except (binascii.Error, ValueError):
        return None
    return url if zero and len(padding) < _BLOCK and _URL.fullmatch(url) else None
