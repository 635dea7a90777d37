"""Parses IP addresses."""

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Prefix lengths that make a network: an IPv6 subscriber has a whole /64 (RFC 6177).
NETWORK_PREFIX_LENGTHS = {4: 32, 6: 64}


def parse_address(address: str) -> Address | None:
    """Parses an address; an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) becomes IPv4. None if it is invalid."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether one of the networks holds the address; an invalid address is in none."""
    ip_address = parse_address(address)
    return ip_address is not None and any(ip_address in network for network in networks)


def is_loopback(address: str) -> bool:
    ip_address = parse_address(address)
    return ip_address is not None and ip_address.is_loopback


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address is this machine's own (RFC 6761 section 6.3)."""
    name = host.lower().removesuffix(".")
    return is_loopback(host) or name == "localhost" or name.endswith(".localhost")


def caller_network(address: str) -> str:
    """The network that bans apply to, '?' if the address is unknown."""
    ip_address = parse_address(address)
    if ip_address is None:
        return "?"
    return str(ipaddress.ip_network((ip_address, NETWORK_PREFIX_LENGTHS[ip_address.version]), strict=False))
