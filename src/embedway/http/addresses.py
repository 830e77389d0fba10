"""Tells public addresses from private ones, which a client may not reach by default."""

import ipaddress
import socket
from typing import Any


class PrivateAddressError(OSError):
    """A name leads to an address that no public provider has."""


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Open a socket for an address that is public.

    Raises:
        PrivateAddressError: It is not.
    """
    family, kind, protocol, _, place = address
    require_public(place[0])
    return socket.socket(family, kind, protocol)


def require_public(host: str) -> None:
    """Refuses an address that no public provider has.

    Raises:
        PrivateAddressError: It is private, link-local (where clouds keep credentials), loopback,
            multicast or reserved, also if written as an IPv6 address.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
        # NAT64 (RFC 6052): the last 32 bits are an IPv4 address.
        if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    refused = any(address in each for each in _NEVER if each.version == address.version)
    if not address.is_global or address.is_multicast or refused:
        raise PrivateAddressError(
            f"{host} is not a public address. If it is yours, declare it as this provider's "
            "base_url."
        )


# Mostly private, but newer versions of Python call parts of it global; Oracle's cloud keeps
# credentials at 192.0.0.192.
_NEVER = [
    *map(ipaddress.IPv4Network, ("192.0.0.0/24", "168.63.129.16/32")),  # the latter is Azure's
    # IPv4 addresses in other clothes, and site-local addresses of old.
    *map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96", "fec0::/10")),
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
