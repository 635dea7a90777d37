"""One refresh of a credential at a time over all hosts; one without an answer leaves it in doubt, not dead."""

import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.server import StreamServer
from redis import Redis

from shared import keys
from shared.credentials.records import CredentialRecord
from shared.credentials.sealing import fingerprint
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import InvalidGrant, LeaseLost, RefreshPending, TokenEndpointDown, TokenError, TokenRefused
from shared.settings.schema import PoolSettings
from tests.token_refresher import TokenHarness
from tests.upstream import Upstream
from tests.waiting import eventually
from workers.attempt.outcomes import label_token_failure
from workers.credentials.leases import Lease, Leases
from workers.credentials.refresh_request import RefreshRequest
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_endpoint.token_response import TokenGrant
from workers.refresher import credential_refresh
from workers.refresher.refresh_lock import RefreshLock


@pytest.fixture
def harness(redis: Redis, unsealer: Unsealer, upstream: Upstream) -> TokenHarness:
    return TokenHarness(redis, unsealer, upstream)


def begin(harness: TokenHarness, refresher_id: str, token: str = "") -> tuple[bool, bool]:
    """See RefreshLock.begin; the token is the imported one by default."""
    lease, token = harness.lease, token or harness.imported
    request = RefreshRequest(lease.pool, lease.credential_id, lease.value, lease.valid_until)
    return RefreshLock(harness.redis, refresher_id).begin(request, token, token)


def begin_elsewhere(harness: TokenHarness) -> RefreshLock:
    """Another host's refresher presents the token; it is alive if it has reported."""
    begin(harness, "elsewhere")
    return RefreshLock(harness.redis, "elsewhere")


def record(harness: TokenHarness) -> CredentialRecord:
    return Credentials(harness.redis).get(harness.credential_id, ["default"])


def test_token_is_not_presented_while_a_refresher_of_another_host_presents_it(
    harness: TokenHarness, upstream: Upstream
):
    harness.redis.zadd(keys.REFRESHERS, {"elsewhere": time.time() + 3600})
    lock = begin_elsewhere(harness)
    getting = gevent.spawn(harness.build_token().get)
    gevent.sleep(0.8)
    assert upstream.counters()["refreshes"] == 0
    lock.end(harness.credential_id, is_in_doubt=False)
    assert getting.get(timeout=30)
    assert upstream.counters()["refreshes"] == 1
    assert harness.counters.value("tokens_in_doubt", "refresher_lost") == 0


def test_token_of_a_dead_refresher_is_presented_again_and_a_grant_ends_the_doubt(harness: TokenHarness):
    begin_elsewhere(harness)
    assert harness.build_token().get()
    assert harness.counters.value("tokens_in_doubt", "refresher_lost") == 1
    assert record(harness).in_doubt_since == 0
    assert harness.redis.hget(keys.credential(harness.credential_id), "refreshing_by") is None


def test_credential_in_doubt_is_dead_only_after_the_whole_patience(harness: TokenHarness, monkeypatch):
    """Although others of its pool are granted tokens, which else halves it."""
    requested: list[str] = []

    def refuse(_: TokenEndpoint, token: str) -> TokenGrant:
        requested.append(token)
        raise InvalidGrant("no")

    monkeypatch.setattr(TokenEndpoint, "refresh", refuse)
    harness.patience = 3.0
    begin_elsewhere(harness)
    token, started_at = harness.build_token(), time.time()
    while True:
        harness.breaker.record_grant()
        try:
            token.get()
        except InvalidGrant:
            break
        except TokenRefused as refused:
            assert label_token_failure(refused) == "token_in_doubt"
            assert record(harness).in_doubt_since > 0
            gevent.sleep(refused.retry_after)
    assert time.time() - started_at > harness.patience
    assert len(requested) > 4
    assert record(harness).in_doubt_since > 0


def answer_nothing(connection: Any, _: Any) -> None:
    """Reads the request and breaks off."""
    connection.recv(65536)
    connection.close()


@pytest.fixture
def silent_url() -> Iterator[str]:
    server = StreamServer(("127.0.0.1", 0), answer_nothing)
    server.start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.stop()


def test_endpoint_that_breaks_off_leaves_the_credential_in_doubt_and_one_that_cannot_be_reached_does_not(
    harness: TokenHarness, silent_url: str
):
    for url, is_in_doubt in (("http://127.0.0.1:9/token", False), (silent_url, True)):
        harness.pool = PoolSettings(token_url=url)
        with pytest.raises(TokenEndpointDown):
            harness.build_token().get()
        assert (record(harness).in_doubt_since > 0) == is_in_doubt
    assert harness.counters.value("tokens_in_doubt", "no_answer") == 1


class SlowEndpoint:
    """A token endpoint that grants when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.presented: list[str] = []
        self.go_on = Event()
        monkeypatch.setattr(TokenEndpoint, "refresh", lambda _, token: self.refresh(token))

    def refresh(self, token: str) -> TokenGrant:
        self.presented.append(token)
        assert self.go_on.wait(60)
        return TokenGrant(f"at-{len(self.presented)}", 600, f"rt-{len(self.presented)}")


def take_over(harness: TokenHarness) -> Lease:
    """The lease that another worker process claims after the first was killed."""
    harness.redis.delete(harness.lease.key)
    (lease,) = Leases(harness.redis, "b").claim("default", [harness.credential_id], 1)
    return lease


def test_successor_of_a_killed_worker_joins_its_refresh(harness: TokenHarness, monkeypatch):
    endpoint, refresher = SlowEndpoint(monkeypatch), harness.build_refresher()
    first = gevent.spawn(harness.build_token_by(refresher).get)
    eventually(lambda: endpoint.presented)
    second = gevent.spawn(harness.build_token_by(refresher, take_over(harness)).get)
    gevent.sleep(0.3)
    endpoint.go_on.set()
    assert second.get(timeout=30) == "at-1"
    with pytest.raises(LeaseLost):
        first.get(timeout=30)
    assert (endpoint.presented, harness.stored_refresh_token()) == ([harness.imported], "rt-1")


def test_successor_on_another_host_waits_for_the_refresh_of_a_killed_worker(harness: TokenHarness, monkeypatch):
    harness.redis.zadd(keys.REFRESHERS, {"here": time.time() + 3600})
    endpoint = SlowEndpoint(monkeypatch)
    gevent.spawn(harness.build_token().get)
    eventually(lambda: endpoint.presented)
    other = harness.build_token_by(harness.build_refresher("there"), take_over(harness))
    second = gevent.spawn(other.get)
    gevent.sleep(0.6)
    assert endpoint.presented == [harness.imported]
    endpoint.go_on.set()
    # If the grant is stored just after it has looked for one, it presents the new refresh token: no token goes twice.
    token = second.get(timeout=30)
    assert (token, endpoint.presented) in [("at-1", [harness.imported]), ("at-2", [harness.imported, "rt-1"])]


def test_time_from_answer_to_store_is_measured(harness: TokenHarness):
    harness.build_token().get()
    harness.counters.flush(harness.redis)
    fields = [field.decode() for field in harness.redis.hkeys(keys.COUNTERS)]
    for metric in ("token_store_seconds", "token_durable_seconds"):
        assert any(field.startswith(f'["{metric}",[],"le') for field in fields), fields


def test_lease_that_ends_while_a_refresh_waits_for_its_turn_presents_nothing(
    harness: TokenHarness, upstream: Upstream, monkeypatch
):
    """The request carries until when the lease may be relied on."""
    harness.lease.valid_until = 0.1 + time.clock_gettime(time.CLOCK_BOOTTIME)
    refresher = harness.build_refresher()
    slots = [refresher.services.limit.acquire() for _ in range(4)]
    getting = gevent.spawn(harness.build_token_by(refresher).get)
    gevent.sleep(0.3)
    for _ in slots:
        refresher.services.limit.release()
    with pytest.raises(LeaseLost):
        getting.get(timeout=30)
    assert upstream.counters()["refreshes"] == 0
    assert harness.redis.hget(keys.credential(harness.credential_id), "refreshing_by") is None


def test_worker_whose_lease_was_taken_over_presents_nothing(harness: TokenHarness, upstream: Upstream):
    """It does not know yet: by its own clock the lease goes on."""
    take_over(harness)
    with pytest.raises(LeaseLost):
        harness.build_token().get()
    assert upstream.counters()["refreshes"] == 0


def test_token_that_was_replaced_meanwhile_is_not_presented(harness: TokenHarness):
    """To an endpoint with reuse detection it would look stolen."""
    with pytest.raises(RefreshPending):
        begin(harness, "here", "the token that was loaded before")


def test_lock_ends_with_the_reports_of_its_refresher_and_after_five_minutes(harness: TokenHarness):
    now = time.time()
    begin_elsewhere(harness)
    for reported_at, seconds, is_locked in ((now, 5, True), (now - 60, 5, False), (now + 3600, 3600, False)):
        record = {"refreshing_by": "elsewhere", "refreshing_since": now - seconds}
        harness.redis.hset(keys.credential(harness.credential_id), mapping=record)
        harness.redis.zadd(keys.REFRESHERS, {"elsewhere": reported_at})
        if is_locked:
            with pytest.raises(RefreshPending):
                begin(harness, "here")
        else:
            assert begin(harness, "here")[0], "in doubt"


def test_lost_refresh_of_a_former_token_is_no_doubt_about_the_present_one(harness: TokenHarness):
    """A sign-in may have replaced it."""
    begin_elsewhere(harness)
    harness.redis.hset(keys.credential(harness.credential_id), "refreshing_token", fingerprint("the former token"))
    assert begin(harness, "here") == (False, False)


def test_lock_that_another_has_taken_over_is_not_ended(harness: TokenHarness):
    lost = begin_elsewhere(harness)
    begin(harness, "here")
    assert not lost.end(harness.credential_id, is_in_doubt=True)
    assert harness.redis.hget(keys.credential(harness.credential_id), "refreshing_by") == b"here"


def test_refresher_that_was_frozen_after_it_took_the_lock_takes_it_again(
    harness: TokenHarness, upstream: Upstream, monkeypatch
):
    """Meanwhile another may have taken it for dead."""
    taken: list[str] = []
    take = RefreshLock.begin

    def take_and_freeze(lock: RefreshLock, *arguments: Any) -> tuple[bool, bool]:
        result = take(lock, *arguments)
        taken.append("lock")
        if len(taken) == 1:
            gevent.sleep(0.6)
        return result

    monkeypatch.setattr(credential_refresh, "MAX_FROZEN_SECONDS", 0.5)
    monkeypatch.setattr(RefreshLock, "begin", take_and_freeze)
    assert harness.build_token().get()
    assert len(taken) > 1
    assert upstream.counters()["refreshes"] == 1


def test_grant_that_comes_too_late_leaves_no_lock(harness: TokenHarness, monkeypatch):
    """A sign-in has brought a newer token while the old one was presented."""
    endpoint = SlowEndpoint(monkeypatch)
    getting = gevent.spawn(harness.build_token().get)
    eventually(lambda: endpoint.presented)
    harness.redis.hset(keys.credential(harness.credential_id), "fingerprint", fingerprint("a newer token"))
    endpoint.go_on.set()
    with pytest.raises(LeaseLost):
        getting.get(timeout=30)
    assert harness.redis.hget(keys.credential(harness.credential_id), "refreshing_by") is None


def test_unexpected_failure_leaves_no_lock_and_the_credential_in_doubt(harness: TokenHarness, monkeypatch):
    """The endpoint may have answered with a rotated token."""

    def fail(_: TokenEndpoint, token: str) -> TokenGrant:
        raise ZeroDivisionError

    monkeypatch.setattr(TokenEndpoint, "refresh", fail)
    with pytest.raises(TokenError, match="ZeroDivisionError"):
        harness.build_token().get()
    assert harness.redis.hget(keys.credential(harness.credential_id), "refreshing_by") is None
    assert record(harness).in_doubt_since > 0
