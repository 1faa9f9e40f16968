"""Where on the web callers may send this service (`[import_filtering_opts]`; spec 5.2, OSSA-2026-004, OSSN-0078).

The service stands where its callers do not: beside other services, and beside the addresses that tell a machine its
secrets. So scheme, host and port have to be allowed, and what a name leads to must be neither this machine nor its own
link, unless the operator has listed the host. Private networks are the operator's to list.

A caller's URL is held against all of it before it is taken, and so is every redirect to another place. What a name
leads to is looked at again by each connection, as its owner may let it lead elsewhere meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from yarl import URL

from glimpse.settings import FilterSettings
from glimpse.stores.addresses import Address, addresses_of, is_inside, plain


@dataclass(frozen=True)
class UriFilter:
    """The operator's lists; an empty one allows, and forbids, nothing in particular."""

    lists: FilterSettings

    async def passes(self, uri: str) -> bool:
        """Whether the service may fetch this. A name is looked up, nothing is connected to."""
        try:
            url = URL(uri)
            host, port = url.host, url.explicit_port
        except ValueError:
            return False
        lists = self.lists
        if not host or not _allowed(url.scheme, lists.allowed_schemes, lists.disallowed_schemes):
            return False
        # A name with a dot at its end is the same name.
        if not _allowed(host.removesuffix("."), lists.allowed_hosts, lists.disallowed_hosts):
            return False
        if port is not None and not _allowed(port, lists.allowed_ports, lists.disallowed_ports):
            return False
        addresses = await addresses_of(host)
        return bool(addresses) and all(self.lets_connect(host, each) for each in addresses)

    def lets_connect(self, host: str, address: Address) -> bool:
        """Whether that name may lead to that address."""
        lists = self.lists
        if host.removesuffix(".") in lists.allowed_hosts:
            return True
        forbidden = frozenset(() if lists.allowed_hosts else lists.disallowed_hosts)
        return not is_inside(address) and forbidden.isdisjoint((str(address), str(plain(address))))


def _allowed(value: str | int, allowed: Collection[str | int], disallowed: Collection[str | int]) -> bool:
    """A list of what is allowed makes the other one void."""
    return value in allowed if allowed else value not in disallowed
