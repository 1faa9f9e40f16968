"""Tokens and passwords to a `Context`: the three ways to know who is calling.

Identity headers (X-Roles, X-Project-Id, …) are never read from a request (OSSA-2026-001): an identity comes out of a
token that Keystone vouched for, out of the password file, or is the one admin of a service without authentication.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import bcrypt
import webob.exc
from keystoneauth1 import exceptions as keystone_errors
from keystonemiddleware import auth_token
from keystonemiddleware.auth_token import _exceptions as ksm_errors
from keystonemiddleware.auth_token import _request as ksm_request
from oslo_config import cfg

from glimpse.access.policy import Policy
from glimpse.domain.context import Context
from glimpse.errors import SettingsError, Unauthorized, Unavailable
from glimpse.settings import Settings

LOG = logging.getLogger(__name__)

# An identity is believed this long without asking keystonemiddleware (and its memcached) again; a token that is
# revoked in between goes on working for so long, on top of [keystone_authtoken] token_cache_time.
CACHE_SECONDS = 30.0
CACHE_ENTRIES = 10_000
KEYSTONE_TIMEOUT = 10  # seconds, where [keystone_authtoken] http_connect_timeout is not set

Headers = Mapping[str, str]
Catalogue = Sequence[Mapping[str, Any]]  # services with their endpoints, as in a token of Keystone's API v3


@dataclass(frozen=True, slots=True)
class Call:
    """What an identity may depend on: the headers, and the method and path for restricted application credentials."""

    headers: Headers
    method: str
    path: str


class Auth(Protocol):
    """One way to know who is calling."""

    def known(self, call: Call) -> Context | None:
        """The identity, if it can be told at once; safe on the event loop. Raises `Unauthorized` if none is claimed."""
        ...

    def identify(self, call: Call) -> Context:
        """The identity, if need be by asking others; blocks. Raises `Unauthorized`, `Unavailable`."""
        ...

    def catalogue(self, token: str) -> Catalogue:
        """The services of the cloud as a token's owner sees them; blocks. Raises `Unauthorized`, `Unavailable`."""
        ...


def open_auth(settings: Settings, policy: Policy) -> Auth:
    """The way that `[paste_deploy] flavor` chooses. Raises `SettingsError`."""
    match settings.flavor:
        case "keystone":
            return KeystoneAuth(settings, policy)
        case "http_basic":
            return BasicAuth(settings, policy)
        case _:
            return NoAuth()


class NoAuth:
    """Everybody is admin, without a project; settings keep such a service on loopback."""

    _context = Context(roles=frozenset({"admin", "member", "reader"}), is_admin=True)

    def known(self, call: Call) -> Context | None:
        return self._context

    def identify(self, call: Call) -> Context:
        return self._context

    def catalogue(self, token: str) -> Catalogue:
        return ()


class _Cache:
    """Identities by what proved them, for a while. Keys are hashes, so that no token lies around in memory."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: OrderedDict[bytes, tuple[float, Context]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Context | None:
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > time.monotonic() else None

    def put(self, key: bytes, context: Context, seconds: float) -> None:
        with self._lock:
            self._entries[key] = (time.monotonic() + min(seconds, self._seconds), context)
            self._entries.move_to_end(key)
            while len(self._entries) > CACHE_ENTRIES:
                self._entries.popitem(last=False)


def _key(*parts: str | None) -> bytes:
    # Headers may hold any byte; aiohttp hands them over as surrogates.
    return hashlib.sha256("\0".join(part or "" for part in parts).encode("utf-8", "surrogateescape")).digest()


class KeystoneAuth:
    """Tokens through keystonemiddleware: its cache in memcached, its rules for service tokens and expiry."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        conf = settings.conf
        self._policy = policy
        self._anonymous = settings.allow_anonymous_access
        try:
            for group, options in auth_token.list_opts():
                conf.register_opts(options, group=group)
            section = conf.keystone_authtoken
            _accept_old_names(conf)
            # A Keystone that accepts connections and never answers would otherwise be waited for without end.
            conf.set_default("http_connect_timeout", KEYSTONE_TIMEOUT, group="keystone_authtoken")
            self._protocol = auth_token.AuthProtocol(None, {"oslo_config_config": conf, "delay_auth_decision": False})
            uri = section.www_authenticate_uri
            self._cache = _Cache(min(CACHE_SECONDS, section.token_cache_time))
        except (cfg.Error, keystone_errors.ClientException) as error:
            raise SettingsError(f"[keystone_authtoken]: {' '.join(str(error).split())}") from error
        self._challenge = {"WWW-Authenticate": f'Keystone uri="{uri or ""}"'}

    def known(self, call: Call) -> Context | None:
        token = call.headers.get("X-Auth-Token")
        if not token or not token.isascii():
            return self._nobody()
        return self._cache.get(_key(token, call.headers.get("X-Service-Token")))

    def identify(self, call: Call) -> Context:
        token, service_token = call.headers["X-Auth-Token"], call.headers.get("X-Service-Token")
        request = _as_request(call, token, service_token)
        try:
            self._protocol.process_request(request)
        except webob.exc.HTTPServiceUnavailable as error:
            raise Unavailable("Keystone does not answer; try again in a moment.", {"Retry-After": "5"}) from error
        except webob.exc.HTTPUnauthorized:
            return self._nobody()
        except keystone_errors.ClientException as error:
            LOG.error("Keystone: %s", error)
            raise Unavailable("Keystone cannot be used now; try again in a moment.", {"Retry-After": "5"}) from error
        context = self._context(request, token)
        if seconds := _seconds_left(request):
            self._cache.put(_key(token, service_token), context, seconds)
        return context

    def catalogue(self, token: str) -> Catalogue:
        try:
            found: Catalogue = self._protocol.fetch_token(token)["token"].get("catalog") or ()
        except ksm_errors.InvalidToken as error:
            raise Unauthorized("The token does not hold any more.", self._challenge) from error
        except (webob.exc.HTTPServiceUnavailable, keystone_errors.ClientException) as error:
            raise Unavailable("Keystone does not answer; try again in a moment.") from error
        return found

    def _nobody(self) -> Context:
        if self._anonymous:
            return Context(read_only=True)
        raise Unauthorized("The request you have made requires authentication.", self._challenge)

    def _context(self, request: Any, token: str) -> Context:
        headers: Headers = request.headers
        context = Context(
            user_id=headers.get("X-User-Id"),
            project_id=headers.get("X-Project-Id"),
            roles=_roles(headers.get("X-Roles")),
            service_roles=_roles(headers.get("X-Service-Roles")),
            user_domain_id=headers.get("X-User-Domain-Id"),
            project_domain_id=headers.get("X-Project-Domain-Id"),
            domain_id=headers.get("X-Domain-Id"),
            system_scope=headers.get("OpenStack-System-Scope"),
            token=token,
        )
        return replace(context, is_admin=self._policy.allows("context_is_admin", context, {}))


def _accept_old_names(conf: cfg.ConfigOpts) -> None:
    """`auth_uri` is what guides before Queens call `www_authenticate_uri`; the library has forgotten it."""
    conf.register_opt(cfg.StrOpt("auth_uri"), group="keystone_authtoken")
    section = conf.keystone_authtoken
    if section.auth_uri and not section.www_authenticate_uri:
        conf.set_override("www_authenticate_uri", section.auth_uri, group="keystone_authtoken")


def _as_request(call: Call, token: str, service_token: str | None) -> Any:
    """A request with nothing of the caller's in it but tokens, method and path."""
    request = ksm_request._AuthTokenRequest.blank(call.path, method=call.method)
    request.headers["X-Auth-Token"] = token
    if service_token:
        request.headers["X-Service-Token"] = service_token
    return request


def _roles(value: str | None) -> frozenset[str]:
    return frozenset(role.strip().lower() for role in (value or "").split(",") if role.strip())


def _seconds_left(request: Any) -> float:
    """How long the identity may be kept: not past the token's end, and not at all when it depends on the path."""
    token = request.token_info["token"]
    if (token.get("application_credential") or {}).get("access_rules") is not None:
        return 0
    return max(0.0, datetime.fromisoformat(token["expires_at"]).timestamp() - time.time())


_BCRYPT = re.compile(r"\$2[abxy]\$[0-3][0-9]\$[./A-Za-z0-9]{53}")


class BasicAuth:
    """HTTP basic (RFC 7617) with a file of bcrypt hashes, as OpenStack's standalone services have it.

    A line is `user:hash[:project[:role,role]]`; without a project it is the user's name, without roles they are member
    and reader. The file may change while the service runs.
    """

    DEFAULT_ROLES = "member,reader"

    def __init__(self, settings: Settings, policy: Policy) -> None:
        self._path = Path(settings.http_basic_auth_user_file)
        self._policy = policy
        self._cache = _Cache(CACHE_SECONDS)
        self._users: dict[str, tuple[bytes, Context]] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._load()
        # A user who does not exist must take as long as one with a wrong password.
        costs = [int(hashed[4:6]) for hashed, _ in self._users.values()]
        self._nobody = bcrypt.hashpw(b"nobody", bcrypt.gensalt(max(costs, key=costs.count, default=12)))

    def known(self, call: Call) -> Context | None:
        given = call.headers.get("Authorization")
        if not given:
            raise _wrong_password()
        return self._cache.get(_key(given))

    def identify(self, call: Call) -> Context:
        given = call.headers["Authorization"]
        user, password = _credentials(given)
        try:
            self._load()
        except SettingsError as error:
            LOG.error("the users stay as they were: %s", error)
        hashed, context = self._users.get(user, (self._nobody, None))
        # bcrypt reads 72 bytes; a longer password would raise.
        if not bcrypt.checkpw(password[:72], hashed) or context is None:
            raise _wrong_password()
        self._cache.put(_key(given), context, CACHE_SECONDS)
        return context

    def catalogue(self, token: str) -> Catalogue:
        return ()

    def _load(self) -> None:
        try:
            stat = os.stat(self._path)
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                self._users = dict(self._parse(line) for line in self._path.read_text().splitlines() if _is_entry(line))
                self._stamp = stamp
        except OSError as error:
            raise SettingsError(
                f"[DEFAULT] http_basic_auth_user_file: {self._path} cannot be read ({error.strerror}); make it with"
                " lines of user:bcrypt-hash:project:role,role"
            ) from error

    def _parse(self, line: str) -> tuple[str, tuple[bytes, Context]]:
        user, _, rest = line.strip().partition(":")
        hashed, project, roles = [*rest.split(":"), "", ""][:3]
        if not user or not _BCRYPT.fullmatch(hashed):
            raise SettingsError(f"{self._path}: the line of user {user!r} is not user:bcrypt-hash:project:role,role")
        context = Context(
            user_id=user, project_id=project or user, roles=_roles(roles or self.DEFAULT_ROLES),
            user_domain_id="default", project_domain_id="default",
        )  # fmt: skip
        return user, (hashed.encode(), replace(context, is_admin=self._policy.allows("context_is_admin", context, {})))


def _is_entry(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _credentials(header: str) -> tuple[str, bytes]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise _wrong_password()
    try:
        user, separator, password = base64.b64decode(encoded, validate=True).partition(b":")
        name = user.decode()
    except ValueError as error:  # not base64, not ASCII, not UTF-8
        raise _wrong_password() from error
    if not separator or b"\0" in password:
        raise _wrong_password()
    return name, password


def _wrong_password() -> Unauthorized:
    challenge = {"WWW-Authenticate": 'Basic realm="Image service", charset="UTF-8"'}
    return Unauthorized("The request you have made requires authentication.", challenge)
