"""What a host on the web leads to: asked before this service goes where somebody else has sent it."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PATIENCE = 10.0  # seconds for a name to be found

# Of their own: a name server that hangs, which callers may choose, must keep nobody else's work waiting.
_threads = ThreadPoolExecutor(8, "names")


async def addresses_of(host: str) -> list[Address]:
    """What a host is; nothing for one that cannot be found, or that is a number in disguise (127.1, 0x7f000001)."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    if re.fullmatch(r"[0-9.]*", host):
        return []
    # The dot at its end makes it a name: the system would read 0x7f000001 as an address.
    return await look_up(host if host.endswith(".") else f"{host}.")


async def look_up(name: str) -> list[Address]:
    """What the system takes a host for; nothing when it finds nothing in `PATIENCE`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE):
            found = await loop.run_in_executor(_threads, _look_up, name)
        return [ipaddress.ip_address(text.partition("%")[0]) for text in found]
    except (OSError, ValueError, TimeoutError):
        return []


def _look_up(name: str) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1; :: and ::1 are in it too
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")  # RFC 1122, 3.2.1.3; some systems take all of it for themselves


def plain(address: Address) -> Address:
    """An IPv4 address that is dressed up as IPv6, as the IPv4 address that it leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and (address in _TRANSLATED or (address in _COMPATIBLE and int(address) > 1)):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


def is_inside(address: Address) -> bool:
    """Whether an address is this machine's own, or of the link that it is on."""
    address = plain(address)
    return address.is_loopback or address.is_link_local or address.is_unspecified or address in _THIS_NETWORK
