"""Where a caller comes from, when proxies that the operator trusts stand in between; it believes no other header."""

import ipaddress
from collections.abc import Sequence

from flask import Request

from shared.ip_addresses import parse_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """The networks of the trusted proxies (FARM_TRUSTED_PROXIES)."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(network) for network in networks]

    def find_caller_address(self, request: Request) -> str:
        """The caller's address: the last of `X-Forwarded-For` that no trusted proxy has, read from the right.

        Whoever is not trusted could write anything to the left of his own address.
        """
        address = request.remote_addr or ""
        if not self._networks or not self._is_trusted(address):
            return address
        forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        for hop in reversed([part.strip() for part in forwarded if part.strip()]):
            address = strip_port(hop)
            if not self._is_trusted(address):
                break
        return address

    def _is_trusted(self, address: str) -> bool:
        ip_address = parse_address(address)
        return ip_address is not None and any(ip_address in network for network in self._networks)


def strip_port(hop: str) -> str:
    """`192.0.2.1:4711` and `[2001:db8::1]:4711` carry a port, as some proxies write them."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
