"""The breaker of a token endpoint: what hits many credentials at once kills none of them."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gevent
import pytest
import requests
from gevent.pywsgi import WSGIServer
from redis import Redis

from shared import keys, names
from shared.credentials.private import PrivateCredentials
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import InvalidGrant, TokenEndpointDown, TokenError, TokenRefused
from shared.observability.counters import Counters
from shared.observability.pool_status import read_pool_statuses
from shared.redis_connection.client import decode_hash
from shared.settings.schema import PoolSettings
from tests import internals
from tests.token_refresher import build_refresher
from tests.upstream import Upstream, first_refresh_tokens
from tests.waiting import eventually
from workers.credentials.access_token import AccessToken, RefreshServices
from workers.credentials.leases import Leases
from workers.credentials.token_breaker import MIN_CREDENTIALS, TokenBreaker
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_store import TokenStore

PATIENCE_SECONDS = 0.6


class PoolHarness:
    """The leased credentials of a pool, whose simulator knows three of them, in one worker process."""

    def __init__(self, redis: Redis, unsealer: Unsealer, upstream: Upstream) -> None:
        self.redis, self.upstream = redis, upstream
        self.counters = Counters()
        self.breaker = TokenBreaker(redis, "default", "a", self.counters)
        self.pool = PoolSettings(upstream_url=upstream.url, token_url=upstream.token_url)
        store = TokenStore(redis, unsealer, self.counters)
        self.endpoint = TokenEndpoint(self.pool, requests.Session())
        refresher = build_refresher(redis, store, self.endpoint, self.breaker, self.counters, PATIENCE_SECONDS)
        self.services = RefreshServices(store, refresher, {"default": 3}, self.counters, PATIENCE_SECONDS)

    def add(self, token: str) -> AccessToken:
        credential_id, _ = Credentials(self.redis).add("default", token)
        return self.lease("default", credential_id)

    def lease(self, pool: str, credential_id: str) -> AccessToken:
        (lease,) = Leases(self.redis, "a").claim(pool, [credential_id], 1)
        return AccessToken(lease, self.breaker, self.services)

    def record(self) -> dict[str, str]:
        return decode_hash(self.redis.hgetall(keys.token_breaker("default")))

    def sync(self) -> None:
        self.breaker.sync(self.record(), time.monotonic())


class FailingEndpoint:
    """A token endpoint whose response is always the same."""

    def __init__(self) -> None:
        self.status, self.body, self.calls = "500 Internal Server Error", b"", 0
        self._server = WSGIServer(("127.0.0.1", 0), self._respond, log=None)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"

    def _respond(self, environ: Any, start_response: Any) -> list[bytes]:
        self.calls += 1
        start_response(self.status, [("content-type", "application/json")])
        return [self.body]

    def close(self) -> None:
        self._server.stop()


@pytest.fixture
def failing_endpoint() -> Iterator[FailingEndpoint]:
    with closing(FailingEndpoint()) as endpoint:
        yield endpoint


@pytest.fixture
def pool(redis: Redis, unsealer: Unsealer, upstream: Upstream) -> PoolHarness:
    return PoolHarness(redis, unsealer, upstream)


@pytest.fixture
def tokens(pool: PoolHarness) -> list[AccessToken]:
    """The pool's three credentials."""
    return [pool.add(token) for token in first_refresh_tokens(3)]


def fail(token: AccessToken) -> TokenError:
    """Asks for an access token, and returns why there is none."""
    with pytest.raises(TokenError) as caught:
        token.get()
    return caught.value


def probe(pool: PoolHarness, tokens: list[AccessToken]) -> AccessToken | None:
    """Makes a probe due and runs it as the worker process does; returns the token that was the probe."""
    internals.make_token_probe_due(pool.breaker)
    by_id = {internals.leased_id(token): token for token in tokens}
    chosen = pool.breaker.take_probe(by_id)
    if not chosen:
        return None
    try:
        by_id[chosen].force_refresh()
    except TokenError:
        pass
    finally:
        pool.breaker.end_probe()
    return by_id[chosen]


def test_refusal_of_all_opens_the_breaker_and_kills_nobody(pool: PoolHarness, tokens: list[AccessToken]):
    pool.upstream.faults(token_refusal=1)
    assert [type(fail(token)) for token in tokens] == [TokenRefused, TokenRefused, TokenEndpointDown]
    refreshes = pool.upstream.counters()["fault_token_refusal"]
    for _ in range(6):
        gevent.sleep(PATIENCE_SECONDS / 3)
        assert {type(fail(token)) for token in tokens} == {TokenEndpointDown}
    assert pool.upstream.counters()["fault_token_refusal"] == refreshes
    assert pool.counters.value("token_breaker_opened", "default", "invalid_grant") == 1


def test_endpoint_is_probed_by_one_credential_after_the_other_and_the_first_grant_closes_the_breaker(
    pool: PoolHarness, tokens: list[AccessToken]
):
    pool.upstream.faults(token_refusal=1)
    for token in tokens:
        fail(token)
    assert {probe(pool, tokens) for _ in range(3)} == set(tokens)
    assert pool.record()["failed_probes"] == "3"
    gevent.sleep(PATIENCE_SECONDS)
    assert {type(fail(token)) for token in tokens} == {TokenEndpointDown}
    pool.upstream.faults()
    assert probe(pool, tokens) in tokens
    assert (pool.record(), pool.breaker.is_open) == ({}, False)
    gevent.sleep(PATIENCE_SECONDS)
    assert all(token.get() for token in tokens)
    assert {credential.state for credential in Credentials(pool.redis).list(["default"])} == {"active"}


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        ("401 Unauthorized", b'{"error": "invalid_client"}', "refused"),
        ("403 Forbidden", b"<html>blocked</html>", "refused"),
        ("503 Service Unavailable", b"", "unavailable"),
    ],
)
def test_any_failure_of_all_opens_the_breaker(
    pool: PoolHarness,
    tokens: list[AccessToken],
    failing_endpoint: FailingEndpoint,
    status: str,
    body: bytes,
    reason: str,
):
    failing_endpoint.status, failing_endpoint.body = status, body
    for token in tokens:
        internals.set_token_url(pool.endpoint, failing_endpoint.url)
        fail(token)
    assert pool.record()["reason"] == reason
    calls = failing_endpoint.calls
    gevent.sleep(PATIENCE_SECONDS)
    assert {type(fail(token)) for token in tokens} == {TokenEndpointDown}
    assert failing_endpoint.calls == calls


def test_credentials_with_a_valid_access_token_go_on_while_the_breaker_is_open(
    pool: PoolHarness, tokens: list[AccessToken]
):
    working = tokens[0].get()
    pool.upstream.faults(token_refusal=1)
    pool.redis.hset(keys.token_breaker("default"), mapping={"since": 1, "reason": "invalid_grant", "probe_at": 9e9})
    pool.sync()
    assert tokens[0].get() == working
    tokens[0].renew_at = 0.0
    assert tokens[0].get() == working
    assert isinstance(fail(tokens[1]), TokenEndpointDown)
    assert "fault_token_refusal" not in pool.upstream.counters()


def test_single_revoked_credential_dies_and_opens_no_breaker(pool: PoolHarness, tokens: list[AccessToken]):
    revoked, other, _ = tokens
    pool.upstream.accounts(kill=0)
    started_at = time.time()

    def is_dead() -> bool:
        assert other.get(stale=other.get())
        error = fail(revoked)
        assert isinstance(error, TokenRefused | InvalidGrant)
        return isinstance(error, InvalidGrant)

    eventually(is_dead)
    assert time.time() - started_at > PATIENCE_SECONDS / 3
    assert pool.record() == {}


def test_several_revoked_credentials_die_although_they_open_the_breaker(pool: PoolHarness):
    revoked = {pool.add(f"unknown-{number}") for number in range(MIN_CREDENTIALS)}
    healthy = [pool.add(token) for token in first_refresh_tokens(3)]
    for token in revoked:
        fail(token)
    assert pool.breaker.is_open
    dead: set[AccessToken] = set()

    def all_are_dead() -> bool:
        probe(pool, [*revoked, *healthy])
        dead.update(token for token in revoked - dead if isinstance(fail(token), InvalidGrant))
        return dead == revoked

    eventually(all_are_dead)
    assert all(token.get() for token in healthy)


def test_credentials_refused_before_and_after_a_grant_do_not_open_the_breaker(pool: PoolHarness):
    ids = [f"c{number}" for number in range(MIN_CREDENTIALS)]
    refused_at = pool.breaker.record_failure(ids[0], "invalid_grant").now
    pool.breaker.record_grant()
    assert not any(pool.breaker.record_failure(id_, "invalid_grant", refused_at).is_open for id_ in ids)
    # Once more without a grant in between, they are evidence again.
    assert pool.breaker.record_failure(ids[0], "invalid_grant").is_open is False
    assert [pool.breaker.record_failure(id_, "invalid_grant").is_open for id_ in ids] == [False, True, True]


def test_second_outage_right_after_the_first_kills_nobody(pool: PoolHarness, tokens: list[AccessToken]):
    pool.upstream.faults(token_refusal=1)
    for token in tokens:
        fail(token)
    pool.breaker.record_grant()
    for _ in range(4):
        gevent.sleep(PATIENCE_SECONDS / 3)
        assert InvalidGrant not in {type(fail(token)) for token in tokens}
    assert pool.breaker.is_open


def test_breaker_is_open_in_all_processes_and_one_probes(pool: PoolHarness, tokens: list[AccessToken]):
    other = TokenBreaker(pool.redis, "default", "b", pool.counters)
    pool.upstream.faults(token_refusal=1)
    for token in tokens:
        fail(token)
    other.sync(pool.record(), time.monotonic())
    assert other.is_open
    for breaker in (pool.breaker, other):
        internals.make_token_probe_due(breaker)
    assert pool.breaker.take_probe(["c1"]) == "c1"
    assert other.take_probe(["d1"]) == ""
    pool.breaker.end_probe()
    assert other.take_probe(["d1"]) == "d1"
    other.record_grant()
    pool.sync()
    assert not pool.breaker.is_open


def test_unknown_private_tokens_prove_nothing_about_the_endpoint_and_are_refused_at_once(
    pool: PoolHarness, tokens: list[AccessToken]
):
    private = PrivateCredentials(pool.redis)
    for number in range(MIN_CREDENTIALS):
        name = private.add("default", f"anything-{number}", 10)
        assert isinstance(fail(pool.lease(name, names.private_credential_id(name))), InvalidGrant)
    assert pool.record() == {}
    assert tokens[0].get()


def test_open_breaker_is_shown_in_the_pools_status(pool: PoolHarness, tokens: list[AccessToken]):
    pool.upstream.faults(token_refusal=1)
    for token in tokens:
        fail(token)
    (status,) = read_pool_statuses(pool.redis, ["default"])
    assert status.token_endpoint_failure == "invalid_grant"
    assert status.warnings == ["its token endpoint fails for several credentials (invalid_grant)"]
