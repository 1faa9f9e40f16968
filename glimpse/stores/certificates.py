"""Whose certificates a store believes, where an option names a file with them."""

from __future__ import annotations

import ssl

from glimpse.errors import SettingsError


def trusting(path: str, option: str, where: str) -> ssl.SSLContext:
    """Trust the authorities in that file, and no others.

    `option` names it and `where` its section for `SettingsError`: it cannot be read, or holds no certificates.
    """
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        reason = error.strerror or "it holds no certificates"
        raise SettingsError(f"{where} {option}: {path} cannot be used: {reason}") from error
