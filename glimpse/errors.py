"""Every failure of the service, with the HTTP status that a client gets for it.

    GlimpseError                    500
    ├── BadRequest                  400  what the client sent cannot be meant
    │   └── SizeMismatch            400  more or fewer bytes than were announced
    ├── Unauthorized                401  no identity, or a token that does not hold
    ├── Forbidden                   403  known, but not allowed
    ├── NotFound                    404  absent, or not to be seen by the caller
    ├── MethodNotAllowed            405  the path exists, the method does not
    ├── Conflict                    409  the record is in another state than the call needs
    │   └── Duplicate               409  the id, or the bytes, exist already
    ├── Gone                        410  a race was lost, or writing is switched off
    ├── PreconditionFailed          412  the record is not in the version that If-Match names
    ├── TooLarge                    413  a quota or a limit is reached
    │   └── StoreFull               413  the store has no room left
    ├── UnsupportedMediaType        415  a wrong content type, or content that is not what it claims
    ├── RangeNotSatisfiable         416  a range outside the image
    ├── HeadersTooLarge             431  a request id that is too long
    ├── NotImplementedMethod        501  an HTTP verb that the API does not know
    ├── BadGateway                  502  another node of the service answers what makes no sense
    ├── Unavailable                 503  a part we depend on does not answer; try again
    ├── GatewayTimeout              504  another node of the service, which alone can do it, does not answer
    └── (SettingsError)             never reaches HTTP: it stops the start of a command
        └── (Unconfigured)          a store lacks what it needs; only for the default store does it stop the start

Only what speaks to others (drivers, `stores.web`, `db.engine`, `access.auth`, `api.peers`) translates foreign
exceptions into these; only `api.wire` renders them.
"""

from __future__ import annotations

from collections.abc import Mapping


class GlimpseError(Exception):
    """Base of all failures that the service knows by name.

    `message` is shown to clients: it never holds a path, a URL with credentials or a token.
    """

    status = 500
    title = "Internal Server Error"

    def __init__(self, message: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})


class BadRequest(GlimpseError):
    """400: the request is malformed or breaks the schema."""

    status, title = 400, "Bad Request"


class SizeMismatch(BadRequest):
    """400: a body is longer or shorter than its declared size."""


class Unauthorized(GlimpseError):
    """401: the caller has not shown who they are."""

    status, title = 401, "Unauthorized"


class Forbidden(GlimpseError):
    """403: policy or protection refuses the call."""

    status, title = 403, "Forbidden"


class NotFound(GlimpseError):
    """404: nothing there, or nothing that this caller may know of."""

    status, title = 404, "Not Found"


class MethodNotAllowed(GlimpseError):
    """405; `headers` carries Allow (RFC 9110, 15.5.6)."""

    status, title = 405, "Method Not Allowed"


class Conflict(GlimpseError):
    """409: the image is in a state that rules the call out."""

    status, title = 409, "Conflict"


class Duplicate(Conflict):
    """409: an id that is taken, or bytes that a store holds already."""


class Gone(GlimpseError):
    """410: lost a race, deleted meanwhile, or the store cannot be written to."""

    status, title = 410, "Gone"


class PreconditionFailed(GlimpseError):
    """412 (RFC 9110, 15.5.13)."""

    status, title = 412, "Precondition Failed"


class TooLarge(GlimpseError):
    """413: a limit of the service, or of the caller's project."""

    status, title = 413, "Request Entity Too Large"


class StoreFull(TooLarge):
    """413: no space left where the bytes should go."""


class UnsupportedMediaType(GlimpseError):
    """415: wrong Content-Type, or image content that contradicts its disk_format."""

    status, title = 415, "Unsupported Media Type"


class RangeNotSatisfiable(GlimpseError):
    """416 (RFC 9110, 15.5.17)."""

    status, title = 416, "Requested Range Not Satisfiable"


class HeadersTooLarge(GlimpseError):
    """431 (RFC 6585, 5)."""

    status, title = 431, "Request Header Fields Too Large"


class NotImplementedMethod(GlimpseError):
    """501: a verb outside GET, HEAD, POST, PUT, PATCH, DELETE."""

    status, title = 501, "Not Implemented"


class BadGateway(GlimpseError):
    """502: the node that was asked on behalf of the caller answers what is no answer."""

    status, title = 502, "Bad Gateway"


class GatewayTimeout(GlimpseError):
    """504: the node that has what the call needs cannot be reached."""

    status, title = 504, "Gateway Timeout"


class Unavailable(GlimpseError):
    """503: the database, a store or Keystone does not answer; nothing was lost, the call can be repeated."""

    status, title = 503, "Service Unavailable"


class SettingsError(Exception):
    """A configuration that the service cannot start with; the text is one line for the operator."""


class Unconfigured(SettingsError):
    """A store lacks a library or credentials; the text says which, and how to get them.

    The service starts without it, as Glance does, unless it is the default store.
    """
