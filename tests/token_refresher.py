"""A token refresher in this process, and a credential whose tokens it refreshes."""

from collections.abc import Callable

import requests
from gevent.lock import BoundedSemaphore
from redis import Redis

from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from shared.settings.schema import PoolSettings
from tests.upstream import Upstream, first_refresh_tokens
from workers.credentials.access_token import AccessToken, RefreshServices
from workers.credentials.leases import Lease, Leases
from workers.credentials.token_breaker import TokenBreaker
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_endpoint.token_response import TokenGrant
from workers.credentials.token_store import TokenStore
from workers.refresher.credential_refresh import RefresherServices
from workers.refresher.refresh_lock import RefreshLock
from workers.refresher.token_refresher import TokenRefresher

#: Patience with refused tokens; the first pause is a fifteenth of it.
PATIENCE_SECONDS = 0.6


def build_refresher(
    redis: Redis,
    store: TokenStore,
    endpoint: TokenEndpoint,
    breaker: TokenBreaker,
    counters: Counters,
    patience: float,
    refresher_id: str = "",
    learn_account: Callable[[Lease, TokenGrant, str], None] = lambda *_: None,
) -> TokenRefresher:
    """One for the pool `default`; `patience` is in seconds."""
    return TokenRefresher(
        RefresherServices(
            store,
            RefreshLock(redis, refresher_id),
            {"default": endpoint},
            {"default": breaker},
            counters,
            BoundedSemaphore(4),
            patience,
            learn_account,
        )
    )


class TokenHarness:
    """One leased credential, and what is needed to refresh its access token."""

    def __init__(self, redis: Redis, unsealer: Unsealer, upstream: Upstream, **pool: str) -> None:
        self.redis = redis
        self.counters = Counters()
        self.token_store = TokenStore(redis, unsealer, self.counters, refresher_id="here")
        self.breaker = TokenBreaker(redis, "default", "a", self.counters)
        self.imported = first_refresh_tokens(3)[0]
        self.credential_id, _ = Credentials(redis).add("default", self.imported)
        (self.lease,) = Leases(redis, "a").claim("default", [self.credential_id], 1)
        self.pool = PoolSettings(upstream_url=upstream.url, token_url=upstream.token_url, **pool)
        self.patience = PATIENCE_SECONDS

    def build_token(self, lease: Lease | None = None) -> AccessToken:
        return self.build_token_by(self.build_refresher(), lease)

    def build_token_by(self, refresher: TokenRefresher, lease: Lease | None = None) -> AccessToken:
        services = RefreshServices(self.token_store, refresher, {"default": 1}, self.counters, self.patience)
        return AccessToken(lease or self.lease, self.breaker, services)

    def build_refresher(self, refresher_id: str = "here") -> TokenRefresher:
        endpoint = TokenEndpoint(self.pool, requests.Session())
        return build_refresher(
            self.redis, self.token_store, endpoint, self.breaker, self.counters, self.patience, refresher_id
        )

    def stored_refresh_token(self) -> str:
        return self.token_store.load(self.credential_id)[0]
