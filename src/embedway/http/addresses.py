"""Refuses private addresses, which a client may not call by default."""

import ipaddress
import socket
from typing import Any


class PrivateAddressError(OSError):
    """A host name resolves to an address that is not public."""


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Open a socket for a public address, given as `socket.getaddrinfo` returns it.

    Raises:
        PrivateAddressError: The address is not public.
    """
    family, kind, protocol, _, host_and_port = address
    require_public(host_and_port[0])
    return socket.socket(family, kind, protocol)


def require_public(host: str) -> None:
    """Refuse an IP address that is not public.

    Raises:
        PrivateAddressError: It is private, link-local (where clouds keep credentials), loopback,
            multicast or reserved, or an IPv6 form of such an address.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
        # NAT64 (RFC 6052): the last 32 bits are an IPv4 address.
        if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    reserved = any(address in each for each in _RESERVED if each.version == address.version)
    if not address.is_global or address.is_multicast or reserved:
        raise PrivateAddressError(
            f"{host} is not a public address. If it is yours, declare it as this provider's "
            "base_url."
        )


_RESERVED = [
    # Newer versions of Python call parts of the first network global, but Oracle's cloud keeps
    # credentials at 192.0.0.192. The second is Azure's.
    *map(ipaddress.IPv4Network, ("192.0.0.0/24", "168.63.129.16/32")),
    # IPv6 forms of IPv4 addresses, and the former site-local addresses.
    *map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96", "fec0::/10")),
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
