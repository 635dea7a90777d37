"""IP addresses as text; it knows no request."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(address: str) -> Address | None:
    """The address, of one of IPv4 inside IPv6 (RFC 4291 section 2.5.5.2) that of IPv4; None for what is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
