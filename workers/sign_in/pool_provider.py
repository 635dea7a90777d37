"""A pool's authorization server, as refreshes and sign-ins need it."""

from collections.abc import Callable, Iterable
from functools import partial

from shared.settings.schema import PoolSettings
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.sign_in.provider import Provider
from workers.upstream.pool_network import create_pool_session

#: Requests of one process to it that run at the same time.
MAX_CONCURRENT_REQUESTS = 64


def build_authorization_servers(pools: Iterable[PoolSettings]) -> tuple[dict[str, TokenEndpoint], dict[str, Provider]]:
    """Pool -> its token endpoint, and pool -> the rest of its authorization server."""
    endpoints: dict[str, TokenEndpoint] = {}
    providers: dict[str, Provider] = {}

    def find_token_url(pool: str) -> str:
        return providers[pool].find_token_url()

    for pool in pools:
        endpoints[pool.name] = build_token_endpoint(pool, partial(find_token_url, pool.name))
        providers[pool.name] = build_provider(pool, endpoints[pool.name])
    return endpoints, providers


def build_token_endpoint(pool: PoolSettings, find_url: Callable[[], str]) -> TokenEndpoint:
    session = create_pool_session(pool, pool.token_url or pool.issuer or pool.upstream_url, MAX_CONCURRENT_REQUESTS)
    return TokenEndpoint(pool, session, find_url)


def build_provider(pool: PoolSettings, endpoint: TokenEndpoint) -> Provider:
    url = pool.issuer or pool.token_url
    return Provider(pool, endpoint, create_pool_session(pool, url, MAX_CONCURRENT_REQUESTS))
