"""Bounds the connections of one address, so that nobody can use up those that a front accepts."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from shared.network.ip_addresses import caller_network, parse_address
from web.server.client_address import TrustedProxies


class ConnectionLimit:
    """The open connections of a front by network; a proxy, and this machine, may have any number."""

    def __init__(self, limit: int, trusted_proxies: TrustedProxies) -> None:
        """`limit`: connections of an address (IPv6: of its /64); 0 for any number."""
        self._limit = limit
        self._trusted_proxies = trusted_proxies
        self._open: Counter[str] = Counter()

    @contextmanager
    def hold(self, address: str, forwarded: Iterable[str] = ()) -> Iterator[bool]:
        """Counts a connection from that address while it is open; yields False if there are too many.

        One from the unix socket ('') is the caller's whom `forwarded`, values of X-Forwarded-For, names.
        """
        if not address:
            address = self._trusted_proxies.resolve(address, forwarded)
        if not self._limit or self._is_exempt(address):
            yield True
            return
        network = caller_network(address)
        if self._open[network] >= self._limit:
            yield False
            return
        self._open[network] += 1
        try:
            yield True
        finally:
            self._open[network] -= 1
            if not self._open[network]:
                del self._open[network]

    def _is_exempt(self, address: str) -> bool:
        ip_address = parse_address(address)
        return ip_address is None or ip_address.is_loopback or self._trusted_proxies.is_trusted(address)
