"""The service's own users in Swift, as the configuration names them; Glance calls each a reference."""

from __future__ import annotations

import configparser
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keystoneauth1.identity import v3

from glimpse.errors import SettingsError

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """A service user, as a section of `swift_store_config_file` or the options name it.

    `user` is `project:user` with `key`; else there is an application credential.
    """

    auth_address: str
    user: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    application_credential_id: str = field(default="", repr=False)
    application_credential_secret: str = field(default="", repr=False)
    user_domain_id: str | None = None
    user_domain_name: str | None = None
    project_domain_id: str | None = None
    project_domain_name: str | None = None

    def plugin(self, address: str, trust: str | None = None) -> v3.Auth:
        """What keystoneauth1 needs of it."""
        domain: dict[str, Any] = {"user_domain_id": self.user_domain_id, "user_domain_name": self.user_domain_name}
        if self.application_credential_id:
            return v3.ApplicationCredential(
                address, application_credential_id=self.application_credential_id,
                application_credential_secret=self.application_credential_secret, trust_id=trust,
            )  # fmt: skip
        project, _, user = self.user.partition(":")
        scope: dict[str, Any] = {
            "project_name": project, "project_domain_id": self.project_domain_id,
            "project_domain_name": self.project_domain_name,
        }  # fmt: skip
        if trust is not None:
            scope = {"trust_id": trust}
        return v3.Password(address, username=user, password=self.key, **domain, **scope)


def references(options: Mapping[str, Any], where: str) -> Mapping[str, Reference]:
    """All service users that the configuration knows, by name; perhaps none.

    They are those of `swift_store_config_file`, else the one of the options, named as `default_swift_reference` says.
    Raises `SettingsError` for a file that cannot be read.
    """
    path = options["swift_store_config_file"]
    if path:
        return _from_file(path, where)
    named = {
        "auth_address": options["swift_store_auth_address"],
        "user": options["swift_store_user"],
        "key": options["swift_store_key"],
        "application_credential_id": options["swift_store_application_credential_id"],
        "application_credential_secret": options["swift_store_application_credential_secret"],
    }
    reference = _reference({name: value for name, value in named.items() if value})
    return {} if reference is None else {options["default_swift_reference"]: reference}


def _from_file(path: str, where: str) -> Mapping[str, Reference]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        # The parser's own words quote lines, and with them keys.
        reason = error.strerror if isinstance(error, OSError) else f"it is no INI file ({type(error).__name__})"
        raise SettingsError(f"{where} swift_store_config_file: {path} cannot be read: {reason}") from None
    found = {}
    for name in parser.sections():
        reference = _reference({key: _unquoted(value) for key, value in parser.items(name)})
        if reference is None:
            LOG.error("%s: [%s] is left out: it needs auth_address, user (project:user) and key, or auth_address,"
                      " application_credential_id and application_credential_secret", path, name)  # fmt: skip
        else:
            found[name] = reference
    return found


def _unquoted(value: str | None) -> str:
    """As the file's reader in Glance: one pair of quotes goes, and a percent sign is written twice."""
    text = value or ""
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        text = text[1:-1]
    return text.replace("%%", "%")


def _reference(named: Mapping[str, str]) -> Reference | None:
    """None where something is missing. Users and projects are in the domain `default` unless another is named."""
    domains: dict[str, Any] = {}
    for kind in ("user_domain", "project_domain"):
        given = {f"{kind}_{part}": named.get(f"{kind}_{part}") or None for part in ("id", "name")}
        domains |= given if any(given.values()) else {f"{kind}_id": "default"}
    address = named.get("auth_address", "")
    if address and named.get("application_credential_id") and named.get("application_credential_secret"):
        credential = {name: named[f"application_credential_{name}"] for name in ("id", "secret")}
        return Reference(
            address, application_credential_id=credential["id"], application_credential_secret=credential["secret"]
        )
    if address and ":" in named.get("user", "") and named.get("key"):
        return Reference(address, named["user"], named["key"], **domains)
    return None
