"""Calls from web pages of other origins (Fetch standard, CORS), by oslo.middleware with Glance's defaults.

A dashboard that lets the browser upload straight to the Image API needs it. Off until `[cors] allowed_origin` is set.
"""

from __future__ import annotations

from collections.abc import Mapping

import webob
from oslo_config import cfg
from oslo_middleware import cors

_ASKING = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")

cors.set_defaults(
    allow_headers=[
        "Content-MD5", "X-Image-Meta-Checksum", "X-Storage-Token", "Accept-Encoding", "X-Auth-Token",
        "X-Identity-Status", "X-Roles", "X-Service-Catalog", "X-User-Id", "X-Tenant-Id", "X-OpenStack-Request-ID",
    ],
    expose_headers=[
        "X-Image-Meta-Checksum", "X-Auth-Token", "X-Subject-Token", "X-Service-Token", "X-OpenStack-Request-ID",
    ],
    allow_methods=["GET", "PUT", "POST", "DELETE", "PATCH"],
)  # fmt: skip


class Cors:
    """Which headers a reply needs so that a browser hands it to the page that asked."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._filter = cors.CORS(None, conf)

    def headers(self, method: str, given: Mapping[str, str]) -> dict[str, str]:
        """Headers to add to the reply; for OPTIONS those of a preflight. None for strangers and for other clients."""
        if not self._filter.allowed_origins or "Origin" not in given:
            return {}
        asked = webob.Request.blank(
            "/", method=method, headers={name: given[name] for name in _ASKING if name in given}
        )
        before = webob.Response(status=200)
        after = self._filter.process_response(before, asked)
        return {
            name: value for name, value in after.headers.items() if name == "Vary" or name.startswith("Access-Control-")
        }
