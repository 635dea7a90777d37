"""How a pool's upstream, token and revocation endpoint are reached, by its settings."""

import requests

from shared.settings.schema import PoolSettings
from workers.upstream.client import UpstreamRoute, create_shared_session


def build_route(pool: PoolSettings, url: str) -> UpstreamRoute:
    """The route to one of the pool's URLs, of the upstream mostly."""
    return UpstreamRoute(url, proxy=find_proxy(pool), ca_bundle=pool.ca_bundle, client=pool.client_certificate)


def create_pool_session(pool: PoolSettings, url: str, pool_size: int) -> requests.Session:
    """A session for requests to one of the pool's URLs on behalf of any of its credentials."""
    return create_shared_session(url, pool_size, find_proxy(pool), pool.ca_bundle, pool.client_certificate)


def find_proxy(pool: PoolSettings) -> str:
    """The configured proxy, '' for none; the bundled simulator is on this machine."""
    return "" if pool.simulator else pool.proxy
