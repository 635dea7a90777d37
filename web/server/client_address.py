"""Determines a caller's address, scheme and host behind trusted proxies."""

import ipaddress
from collections.abc import Iterable, Sequence

from flask import Request

from shared.network.ip_addresses import Network, is_loopback, is_within


class TrustedProxies:
    """The networks of trusted proxies (FARM_TRUSTED_PROXIES)."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(network) for network in networks]

    def find_caller_address(self, request: Request) -> str:
        """Returns the address of the caller, '' for a local process that is connected to the unix socket itself."""
        return self.resolve(request.remote_addr or "", request.headers.getlist("x-forwarded-for"))

    def resolve(self, peer: str, forwarded: Iterable[str]) -> str:
        """Returns the rightmost address of `X-Forwarded-For` that is not a trusted proxy; `peer` if that is not one.

        Anything to the left of it could have been forged by the caller.
        """
        address = peer
        if not self.is_trusted_peer(peer):
            return address
        for hop in reversed(split_hops(forwarded)):
            address = hop
            if not self.is_trusted(address):
                break
        return address

    def is_https(self, request: Request) -> bool:
        """Whether the caller speaks TLS with a proxy, trusted or on this host, that says so (`X-Forwarded-Proto`)."""
        if request.is_secure:
            return True
        forwarded = request.headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        address = request.remote_addr or ""
        return forwarded == "https" and (self.is_trusted_peer(address) or is_loopback(address))

    def find_hosts(self, request: Request) -> list[str]:
        """The hosts that the caller may have asked for: `Host` and, from a trusted proxy, `X-Forwarded-Host`."""
        forwarded = request.headers.get("x-forwarded-host", "").rpartition(",")[2].strip()
        is_believed = forwarded and self.is_trusted_peer(request.remote_addr or "")
        return [request.host, *([forwarded] if is_believed else ())]

    def is_trusted_peer(self, peer: str) -> bool:
        """Whether the other end of a connection may name the caller; '' is the unix socket's (front_socket.py)."""
        return not peer or self.is_trusted(peer)

    def is_trusted(self, address: str) -> bool:
        return is_within(address, self._networks)


def split_hops(forwarded: Iterable[str]) -> list[str]:
    """The addresses in values of `X-Forwarded-For`; the nearest proxy has written the last one."""
    return [strip_port(hop.strip()) for hop in ",".join(forwarded).split(",") if hop.strip()]


def strip_port(hop: str) -> str:
    """Removes the port that some proxies append: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
