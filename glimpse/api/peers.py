"""Calls that only another node can answer, as it has the staged bytes: sent on to it in the caller's name (spec 1.3.5).

Where another node is, comes from the property `os_glance_stage_host`, which only the service writes. The caller gets
that node's answer as it is.
"""

from __future__ import annotations

import logging

import aiohttp
from aiohttp import web

from glimpse.api.wire import REQUEST_ID, Reply, request_id
from glimpse.errors import BadGateway, GatewayTimeout, Unavailable

LOG = logging.getLogger(__name__)

TIMEOUT = 60  # seconds for the whole call
LONGEST_REQUEST_ID = 64

SENT_ON = "X-Glimpse-Sent-On"  # a call that has come from another node
# What makes the call the caller's: identity, the store and the version that a header may name, the form of errors.
PASSED_ON = ("X-Auth-Token", "X-Service-Token", "Authorization", "X-Image-Meta-Store", "If-Match", "Accept")


class Peers:
    """The other nodes of the service."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, host: str, incoming: web.BaseRequest, body: bytes = b"") -> Reply:
        """Make the same call to the node at the URL `host`, with the same method, path, identity and a JSON body.

        Raises `GatewayTimeout` (it does not answer), `BadGateway`, `Unavailable` for a call that was sent on already.
        """
        if SENT_ON in incoming.headers:
            LOG.error(
                "another node sent %s %s here, but the bytes are at %s: each node needs its own"
                " worker_self_reference_url", incoming.method, incoming.path, host,
            )  # fmt: skip
            raise Unavailable("The nodes of the service do not agree about where the staged data is.")
        headers = {name: incoming.headers[name] for name in PASSED_ON if name in incoming.headers}
        headers |= {SENT_ON: "1", "X-Openstack-Request-Id": incoming[REQUEST_ID]}
        if body:
            headers["Content-Type"] = "application/json"
        url = f"{host.rstrip('/')}{incoming.rel_url.raw_path}"
        LOG.info("%s: %s %s is for the node at %s", incoming[REQUEST_ID], incoming.method, incoming.path, host)
        try:
            async with self._client().request(
                incoming.method, url, data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                if 300 <= answer.status < 400:
                    raise BadGateway("The node that has the staged data sends its callers elsewhere.")
                return await _reply(answer, incoming)
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            LOG.error("%s: the node at %s cannot be reached: %s", incoming[REQUEST_ID], host, error or "no answer")
            raise GatewayTimeout("The node that has the staged data is unavailable.") from None
        except (aiohttp.ClientError, ValueError) as error:
            LOG.error("%s: the node at %s: %s", incoming[REQUEST_ID], host, type(error).__name__)
            raise BadGateway("The node that has the staged data cannot be asked.") from None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT)
            self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()


async def _reply(answer: aiohttp.ClientResponse, incoming: web.BaseRequest) -> Reply:
    """An answer as ours, under the request id that the other node's log knows."""
    body = await answer.read()
    known_as = answer.headers.get("X-Openstack-Request-Id", incoming[REQUEST_ID])
    incoming[REQUEST_ID] = request_id(known_as, LONGEST_REQUEST_ID)
    return Reply(answer.status, body, answer.content_type if body else None)
