"""Decides from where the operator's pages answer (FARM_ADMIN_NETWORKS)."""

import ipaddress
from collections.abc import Sequence

from flask import Request

from shared.errors import ApiError
from shared.network.ip_addresses import is_within
from web.server.client_address import TrustedProxies, split_hops
from web.server.paths import find_first_segment

#: First segments of the paths that are answered only there. Health checks have no secrets, and answer everywhere.
RESTRICTED_PAGES = frozenset({"admin", "api", "metrics"})


class AdminNetworks:
    """The networks whose callers may see the console, the admin API and the metrics; none configured: all callers."""

    def __init__(self, networks: Sequence[str], trusted_proxies: TrustedProxies) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._trusted_proxies = trusted_proxies

    def check(self, request: Request) -> None:
        """Raises ApiError 403 if the page is restricted and the caller elsewhere, whatever secret it presents."""
        if not self._networks or find_first_segment(request.path) not in RESTRICTED_PAGES:
            return
        for address in self._find_addresses(request):
            if not is_within(address, self._networks):
                message = f"This page does not answer to {address or 'an unknown address'} (FARM_ADMIN_NETWORKS)."
                raise ApiError(403, "ip_not_authorized", message)

    def _find_addresses(self, request: Request) -> list[str]:
        """The caller's address; of a proxy that nobody has declared both its own and that of its caller.

        Otherwise a proxy on this machine without FARM_TRUSTED_PROXIES would open `127.0.0.1` to the world. A caller
        that forges the header only shuts itself out.
        """
        address = self._trusted_proxies.find_caller_address(request)
        is_of_peer = address == (request.remote_addr or "")
        return [address, *(split_hops(request.headers.getlist("x-forwarded-for"))[-1:] if is_of_peer else ())]
