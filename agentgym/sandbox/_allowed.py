# SPDX-License-Identifier: Apache-2.0
"""What a sandbox's allow-list of the network says: its entries, checked, and where each of them is found inside."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from agentgym.errors import UsageError

MOST = 32
"""Entries of one sandbox: each is a socket that the host holds."""
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Destination(NamedTuple):
    """One host and port that may be reached."""

    host: str
    port: int
    literal: bool
    """Whether the host is an address, and not a name to look up."""


def parse(entry: str) -> Destination:
    """An entry ``name:port``, ``1.2.3.4:port`` or ``[2001:db8::1]:port``.

    Raises:
        UsageError: it is anything else.
    """
    host, colon, port = entry.rpartition(":")
    wrong = f"allowed network entry {entry!r}:"
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        raise UsageError(f"{wrong} give host:port with one port from 1 to 65535, e.g. 'pypi.org:443'")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    if address is not None:
        written = f"[{address}]" if address.version == 6 else str(address)
        if host != written or "%" in bare:
            raise UsageError(f"{wrong} write the address as {written.split('%')[0]}:{port}")
        if address.is_multicast or address.is_unspecified:
            raise UsageError(f"{wrong} nobody in particular listens on {address}")
        return Destination(bare, int(port), True)
    # a last label of digits is how other programs write addresses: 127.1, 0x7f.1
    if len(host) > 253 or not _NAME.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise UsageError(f"{wrong} {host!r} is no host name in lower case and no address; patterns and ranges are not known")
    return Destination(host, int(port), False)


def parse_all(entries: Sequence[str]) -> list[Destination]:
    """All entries of one sandbox.

    Raises:
        UsageError: there are none or too many, one is wrong or there twice.
    """
    if not entries:
        raise UsageError("a sandbox spec allows an empty tuple of network entries: say network='none'")
    if len(entries) > MOST:
        raise UsageError(f"a sandbox spec allows {len(entries)} network entries, and a sandbox takes {MOST}")
    found = [parse(entry) for entry in entries]
    if len(set(found)) < len(found):
        raise UsageError("a sandbox spec allows the same network entry twice")
    return found


def layout(allowed: Sequence[Destination]) -> tuple[str, dict[tuple[str, int], Destination]]:
    """Text of the sandbox's ``/etc/hosts``, and what is reached through which address and port inside.

    An address stands for itself. Each name gets one of loopback's, so that certificates and virtual hosts see the name.
    """
    names = dict.fromkeys(to.host for to in allowed if not to.literal and to.host != "localhost")
    # an address of the list may lie among those
    taken = {to.host for to in allowed if to.literal}
    free = (f"127.0.1.{n}" for n in range(1, 255) if f"127.0.1.{n}" not in taken)
    inside = dict(zip(names, free, strict=False)) | {"localhost": "127.0.0.1"}
    lines = [f"{inside[name]} {name}\n" for name in names]
    places: dict[tuple[str, int], Destination] = {}
    for to in allowed:
        places.setdefault((to.host if to.literal else inside[to.host], to.port), to)
    return "".join(lines) + "127.0.0.1 localhost sandbox\n::1 localhost\n", places


def public(text: str) -> bool:
    """Whether an address that a name was resolved to is one of the internet, and not of the host, its networks or its cloud."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if carried is None and address in _NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return public(str(carried))
        if address.is_site_local:
            return False
    return address.is_global and not (
        address.is_multicast or address.is_unspecified or address.is_reserved or address.is_loopback or address.is_link_local
    )
