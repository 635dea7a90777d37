"""Parses IP addresses."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(address: str) -> Address | None:
    """Parses an address; an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) becomes IPv4. None if it is invalid."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
