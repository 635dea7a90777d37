"""A rotated refresh token is durable before its access token is used; no outage kills a credential (I4)."""

import time
from collections.abc import Callable

import gevent
import pytest
import requests
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys
from shared.credentials.sealing import fingerprint
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import BreakerOpen, InvalidGrant, LeaseLost, TokenEndpointDown, TokenError, TokenRefused
from shared.observability.counters import Counters
from shared.settings.schema import PoolSettings
from tests import internals
from tests.token_refresher import PATIENCE_SECONDS, TokenHarness
from tests.upstream import Upstream
from tests.waiting import eventually
from workers.credentials.access_token import RENEW_AHEAD_DURATIONS, AccessToken
from workers.credentials.refusals import Refusals
from workers.credentials.token_endpoint import client
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_endpoint.token_response import TokenGrant
from workers.credentials.token_store import TokenStore
from workers.upstream.client import create_shared_session

Refresh = Callable[[str], TokenGrant]
ReplaceRefresh = Callable[[Refresh], None]


def slow_refresh(token: str) -> TokenGrant:
    """A slow token endpoint."""
    gevent.sleep(0.05)
    return TokenGrant("at", 60, "rt-next")


@pytest.fixture
def harness(redis: Redis, unsealer: Unsealer, upstream: Upstream) -> TokenHarness:
    return TokenHarness(redis, unsealer, upstream)


@pytest.fixture
def replace_refresh(monkeypatch: pytest.MonkeyPatch) -> ReplaceRefresh:
    """Replaces the token endpoint."""
    return lambda refresh: monkeypatch.setattr(TokenEndpoint, "refresh", lambda _, token: refresh(token))


@pytest.mark.parametrize("way", ["form", "json", "bearer"])
def test_access_token_is_fetched_by_each_request_format_and_cached(redis, unsealer, upstream, way: str):
    harness = TokenHarness(redis, unsealer, upstream, token_request=way)
    token = harness.build_token()
    first = token.get()
    assert token.get() == first
    assert upstream.counters()["refreshes"] == 1


def test_unexpected_exception_is_a_failure_of_the_refresh(harness: TokenHarness, replace_refresh: ReplaceRefresh):
    replace_refresh(lambda *_: 1 / 0)
    with pytest.raises(TokenError, match="ZeroDivisionError"):
        harness.build_token().get()


def test_token_that_no_header_can_hold_blames_its_credential(harness: TokenHarness):
    """One that was stored before such tokens were refused at import."""
    pool = PoolSettings(token_url=harness.pool.token_url, token_request="bearer")
    with pytest.raises(TokenError) as caught:
        TokenEndpoint(pool, requests.Session()).refresh("copied\u2013token")
    assert type(caught.value) is TokenError


def test_missing_ca_bundle_blames_no_credential(harness: TokenHarness):
    session = create_shared_session("https://upstream.invalid", 1, ca_bundle="/nowhere/ca.pem")
    with pytest.raises(TokenEndpointDown):
        TokenEndpoint(PoolSettings(token_url="https://upstream.invalid/token"), session).refresh("token")


def test_rotated_token_is_stored_with_its_fingerprint(harness: TokenHarness):
    harness.build_token().get()
    renewed = harness.stored_refresh_token()
    assert renewed != harness.imported
    assert harness.redis.hget(keys.fingerprints("default"), fingerprint(renewed)).decode() == harness.credential_id
    assert Credentials(harness.redis).get(harness.credential_id, ["default"]).rotations == 1


def test_grant_is_used_only_after_redis_has_stored_it(harness: TokenHarness, upstream: Upstream, monkeypatch):
    store, tries = harness.token_store.store, []

    def refuse_twice(*arguments, **options) -> None:
        tries.append(internals.current_token(token))
        if len(tries) < 3:
            raise RedisError("away")
        store(*arguments, **options)

    token = harness.build_token()
    monkeypatch.setattr(harness.token_store, "store", refuse_twice)
    assert token.get()
    assert tries == ["", "", ""]
    assert harness.stored_refresh_token() != harness.imported
    assert upstream.counters()["refreshes"] == 1


def test_refresh_in_flight_is_awaited_before_the_lease_is_released(
    harness: TokenHarness, replace_refresh: ReplaceRefresh
):
    replace_refresh(slow_refresh)
    token = harness.build_token()
    gevent.spawn(token.get)
    gevent.sleep(0.01)
    token.wait_for_refresh()
    assert harness.stored_refresh_token() == "rt-next"


def test_imported_token_is_known_after_any_number_of_rotations(harness: TokenHarness):
    token = harness.build_token()
    for _ in range(3):
        token.get(stale=token.get())
    report = Credentials(harness.redis).import_lines("default", [harness.imported, harness.stored_refresh_token()])
    assert (report.count("added"), report.count("duplicate")) == (0, 2)
    assert harness.redis.hlen(keys.fingerprints("default")) == 2


def test_grant_without_a_refresh_token_keeps_the_old_one(harness: TokenHarness, upstream: Upstream):
    upstream.accounts(rotate=False)
    harness.build_token().get()
    assert harness.stored_refresh_token() == harness.imported


def test_access_token_is_reused_by_another_worker(harness: TokenHarness, upstream: Upstream):
    first = harness.build_token().get()
    assert harness.build_token().get() == first
    assert upstream.counters()["refreshes"] == 1


def test_concurrent_gets_cause_one_refresh(harness: TokenHarness, upstream: Upstream):
    token = harness.build_token()
    greenlets = [gevent.spawn(token.get) for _ in range(20)]
    assert len({greenlet.get(timeout=30) for greenlet in greenlets}) == 1
    assert upstream.counters()["refreshes"] == 1


def test_refresh_goes_on_when_its_waiter_is_killed(harness: TokenHarness, replace_refresh: ReplaceRefresh):
    replace_refresh(slow_refresh)
    token = harness.build_token()
    impatient = gevent.spawn(token.get)
    eventually(token.is_refreshing)
    impatient.kill()
    eventually(lambda: harness.stored_refresh_token() == "rt-next")


def test_access_token_is_renewed_before_it_expires(harness: TokenHarness, replace_refresh: ReplaceRefresh):
    grants = iter([TokenGrant("short", 0.4, None), TokenGrant("next", 60, None)])
    replace_refresh(lambda *_: next(grants))
    token = harness.build_token()
    assert token.get() == "short"
    gevent.sleep(0.36)
    assert token.get() == "next"


def refuse_all(requested: list[str]) -> Refresh:
    """A token endpoint that refuses every token, and lists them."""

    def refuse(token: str) -> TokenGrant:
        requested.append(token)
        raise InvalidGrant("no")

    return refuse


def ask_until_final(token: AccessToken, before: Callable[[], None] = lambda: None) -> list[TokenRefused]:
    """Gets the token after each pause until it is refused for good; returns what was raised before.

    `before` is called before each try.
    """
    raised: list[TokenRefused] = []
    while True:
        before()
        try:
            token.get()
        except InvalidGrant:
            return raised
        except TokenRefused as refused:
            raised.append(refused)
            gevent.sleep(refused.retry_after)


def test_refused_token_is_presented_again_for_the_whole_patience(
    harness: TokenHarness, replace_refresh: ReplaceRefresh
):
    requested: list[str] = []
    replace_refresh(refuse_all(requested))
    started_at = time.time()
    raised = ask_until_final(harness.build_token())
    assert time.time() - started_at > PATIENCE_SECONDS
    assert set(requested) == {harness.imported}
    assert len(requested) == len(raised) + 1 >= 5
    assert [refused.is_last for refused in raised] == [False] * (len(raised) - 1) + [True]


def test_refused_token_is_presented_less_often_when_others_are_granted_tokens(
    harness: TokenHarness, replace_refresh: ReplaceRefresh
):
    requested: list[str] = []
    replace_refresh(refuse_all(requested))
    harness.patience = 3.0
    token = harness.build_token()
    with pytest.raises(TokenRefused) as first:
        token.get()
    gevent.sleep(first.value.retry_after)
    ask_until_final(token, before=harness.breaker.record_grant)
    assert requested == [harness.imported] * 4


def test_refusals_survive_the_worker_and_are_no_hot_loop(harness: TokenHarness, replace_refresh: ReplaceRefresh):
    requested: list[str] = []
    replace_refresh(refuse_all(requested))
    harness.patience = 60.0
    for _ in range(3):
        with pytest.raises(TokenRefused):
            harness.build_token().get()
    assert requested == [harness.imported]
    stored = harness.token_store.load_refusals(harness.credential_id)
    assert (stored.count, stored.is_last) == (1, False)


def test_operator_who_presents_a_refused_token_again_does_not_hasten_its_end(
    harness: TokenHarness, replace_refresh: ReplaceRefresh
):
    requested: list[str] = []
    replace_refresh(refuse_all(requested))
    harness.patience = 60.0
    token = harness.build_token()
    for _ in range(6):
        with pytest.raises(TokenRefused):
            token.force_refresh()
    assert len(requested) == 6
    assert harness.token_store.load_refusals(harness.credential_id).count == 1


def test_grant_and_operator_forget_earlier_refusals(harness: TokenHarness, upstream: Upstream):
    upstream.faults(token_refusal=1)
    token = harness.build_token()
    for forget in (lambda: Credentials(harness.redis).enable("default", harness.credential_id), upstream.faults):
        with pytest.raises(TokenRefused):
            token.get()
        assert harness.token_store.load_refusals(harness.credential_id).count == 1
        forget()
    gevent.sleep(PATIENCE_SECONDS)
    assert token.get()
    assert harness.token_store.load_refusals(harness.credential_id).count == 0


def test_valid_token_is_used_while_its_early_renewal_is_refused(harness: TokenHarness, upstream: Upstream):
    token = harness.build_token()
    first = token.get()
    upstream.faults(token_refusal=1)
    token.renew_at = 0.0
    harness.redis.hset(keys.credential(harness.credential_id), "access_expires", time.time() + 30)
    assert token.get() == first
    assert harness.token_store.load_refusals(harness.credential_id).count == 1
    assert harness.build_token().get() == first


def test_invalid_grant_is_retried_once_with_a_token_stored_meanwhile(
    harness: TokenHarness, unsealer: Unsealer, replace_refresh: ReplaceRefresh
):
    requested = []

    def refuse_the_first(token: str) -> TokenGrant:
        requested.append(token)
        if token == harness.imported:
            sealed = unsealer.sealer.seal("rotated elsewhere", harness.credential_id)
            fields = {"sealed": sealed, "fingerprint": fingerprint("rotated elsewhere")}
            harness.redis.hset(keys.credential(harness.credential_id), mapping=fields)
            raise InvalidGrant("no")
        return TokenGrant("at", 60, None)

    replace_refresh(refuse_the_first)
    assert harness.build_token().get() == "at"
    assert requested == [harness.imported, "rotated elsewhere"]


def test_failing_token_endpoint_does_not_blame_the_credential(harness: TokenHarness, upstream: Upstream):
    upstream.faults(token_error=1)
    with pytest.raises(TokenEndpointDown):
        harness.build_token().get()
    upstream.faults()
    assert harness.build_token().get()


def test_unreachable_token_endpoint_does_not_blame_the_credential(harness: TokenHarness):
    harness.pool = PoolSettings(token_url="http://127.0.0.1:9/token")
    with pytest.raises(TokenEndpointDown):
        harness.build_token().get()


def test_refresh_needs_the_lease(harness: TokenHarness, upstream: Upstream):
    harness.lease.lost = True
    with pytest.raises(LeaseLost):
        harness.build_token().get()
    assert upstream.counters()["refreshes"] == 0


def test_token_rotated_while_the_lease_was_lost_is_stored_but_not_used(
    harness: TokenHarness, replace_refresh: ReplaceRefresh
):
    def lose(token: str) -> TokenGrant:
        harness.redis.set(harness.lease.key, "b:99")
        return TokenGrant("at", 60, "rt-next")

    replace_refresh(lose)
    with pytest.raises(LeaseLost):
        harness.build_token().get()
    assert harness.stored_refresh_token() == "rt-next"


def test_late_grant_does_not_overwrite_a_newer_token(harness: TokenHarness, unsealer: Unsealer):
    harness.redis.hset(keys.credential(harness.credential_id), mapping={"fingerprint": fingerprint("newer")})
    with pytest.raises(LeaseLost):
        harness.token_store.store(harness.lease, harness.imported, TokenGrant("at", 60, "older"))
    assert harness.stored_refresh_token() == harness.imported


def test_removed_credential_has_no_token(harness: TokenHarness):
    Credentials(harness.redis).remove("default", harness.credential_id)
    with pytest.raises(TokenError, match="gone"):
        harness.build_token().get()


def test_refreshes_are_counted_by_outcome(harness: TokenHarness, upstream: Upstream):
    harness.build_token().get()
    upstream.accounts(kill=0)
    with pytest.raises(TokenRefused):
        harness.build_token().get(stale=harness.build_token().get())
    outcomes = ("ok", "invalid_grant", "refused", "unavailable")
    counted = {outcome for outcome in outcomes if harness.counters.value("token_refreshes", outcome)}
    assert counted == {"ok", "invalid_grant"}


class PickyEndpoint:
    """A token endpoint that accepts only certain refresh tokens, and lists those presented."""

    def __init__(self, **grants: TokenGrant) -> None:
        self.grants = grants
        self.presented: list[str] = []

    def refresh(self, token: str) -> TokenGrant:
        self.presented.append(token)
        if token not in self.grants:
            raise InvalidGrant("refused")
        return self.grants[token]


@pytest.mark.parametrize("rotated", ["rt-good", None])
def test_superseded_token_is_presented_at_last_and_becomes_the_current_one(
    harness: TokenHarness, replace_refresh: ReplaceRefresh, rotated: str | None
):
    endpoint = PickyEndpoint(**{harness.imported: TokenGrant("at-1", 0.1, "rt-bad")})
    replace_refresh(endpoint.refresh)
    token = harness.build_token()
    assert token.get() == "at-1"
    assert harness.stored_refresh_token() == "rt-bad"
    endpoint.grants = {harness.imported: TokenGrant("at-2", 60, rotated)}
    endpoint.presented.clear()

    def get() -> str:
        try:
            return token.get(stale="at-1")
        except TokenRefused as refused:
            gevent.sleep(refused.retry_after)
            return ""

    assert eventually(get) == "at-2"
    *refused, accepted = endpoint.presented
    assert (set(refused), accepted) == ({"rt-bad"}, harness.imported)
    assert len(refused) >= 3
    assert harness.stored_refresh_token() == (rotated or harness.imported)
    expected = {"rt-good": harness.imported, None: "rt-bad"}[rotated]
    assert harness.token_store.load_previous(harness.credential_id) == expected
    known = Credentials(harness.redis).import_lines("default", [harness.imported, harness.stored_refresh_token()])
    assert known.count("duplicate") == 2


def refuse_all_but_the_last(harness: TokenHarness, token: str) -> None:
    """So many refusals of this token that it is presented a last time."""
    now = time.time()
    refusals = Refusals(fingerprint(token), 5, now - 100, now - 10, 0, now - 1, is_last=True)
    harness.token_store.store_refusals(harness.lease, refusals)


def present_after_rotation(harness: TokenHarness, endpoint: PickyEndpoint) -> None:
    """An endpoint that refuses the rotated token, and the one before it as well."""
    harness.token_store.store(harness.lease, harness.imported, TokenGrant("at-1", 0.1, "rt-bad"))
    refuse_all_but_the_last(harness, "rt-bad")
    with pytest.raises((TokenError, BreakerOpen)):
        harness.build_token().force_refresh()


def test_superseded_token_is_kept_while_the_endpoint_is_known_to_fail(
    harness: TokenHarness, replace_refresh: ReplaceRefresh
):
    """An endpoint with reuse detection would revoke the whole family, and a last try is worth nothing now."""
    endpoint = PickyEndpoint()
    replace_refresh(endpoint.refresh)
    harness.breaker.is_open = True
    present_after_rotation(harness, endpoint)
    assert set(endpoint.presented) <= {"rt-bad"}
    harness.breaker.is_open = False
    present_after_rotation(harness, endpoint)
    assert endpoint.presented[-1] == harness.imported


def test_refusals_of_a_former_token_count_no_more(harness: TokenHarness, replace_refresh: ReplaceRefresh):
    endpoint = PickyEndpoint()
    replace_refresh(endpoint.refresh)
    refuse_all_but_the_last(harness, "a-token-that-was-replaced")
    with pytest.raises(TokenRefused) as caught:
        harness.build_token().get()
    assert not caught.value.is_last
    assert harness.token_store.load_refusals(harness.credential_id).count == 1


def test_grant_whose_reply_from_redis_was_lost_is_stored_again(harness: TokenHarness):
    grant = TokenGrant("at", 60, "rt-next")
    for _ in range(2):
        harness.token_store.store(harness.lease, harness.imported, grant)
    assert harness.stored_refresh_token() == "rt-next"
    assert harness.token_store.load_previous(harness.credential_id) == harness.imported
    assert Credentials(harness.redis).get(harness.credential_id, ["default"]).rotations == 1


@pytest.mark.parametrize("reason", ["invalid_grant", "invalid_grant: token_revoked"])
def test_grant_revives_a_credential_that_was_marked_dead_meanwhile(
    harness: TokenHarness, replace_refresh: ReplaceRefresh, reason: str
):
    credentials = Credentials(harness.redis)

    def refresh_known(token: str) -> TokenGrant:
        credentials.set_state("default", harness.credential_id, "dead", reason)
        return TokenGrant("at", 60, "rt-next")

    replace_refresh(refresh_known)
    harness.build_token().get()
    credential = credentials.get(harness.credential_id, ["default"])
    assert (credential.state, credential.reason) == ("active", "")


def test_grant_does_not_revive_a_credential_that_is_dead_for_another_reason(harness: TokenHarness):
    credentials = Credentials(harness.redis)
    credentials.set_state("default", harness.credential_id, "dead", "api_key_refused")
    harness.token_store.store(harness.lease, harness.imported, TokenGrant("at", 60, ""))
    assert credentials.get(harness.credential_id, ["default"]).state == "dead"


def test_first_rotation_outdates_an_exported_token(harness: TokenHarness, caplog: pytest.LogCaptureFixture):
    """A repeated store says so again, because the reply to the first one may have been lost."""
    record, told = keys.credential(harness.credential_id), []
    harness.redis.hset(record, "exported_at", 1.0)
    for token, rotated in ((harness.imported, "rt-2"), (harness.imported, "rt-2"), ("rt-2", "rt-3")):
        harness.token_store.store(harness.lease, token, TokenGrant("at", 60, rotated))
        told.append(sum(getattr(entry, "action", "") == "export_outdated" for entry in caplog.records))
    assert told == [1, 2, 2]
    assert harness.redis.hget(record, "export_outdated") == b"1"


@pytest.mark.parametrize(("owner", "left"), [("elsewhere", b"elsewhere"), ("here", None)])
def test_stored_grant_ends_the_refresh_of_its_own_refresher_only(
    harness: TokenHarness, unsealer: Unsealer, owner: str, left: bytes | None
):
    record = keys.credential(harness.credential_id)
    harness.redis.hset(record, "refreshing_by", owner)
    store = TokenStore(harness.redis, unsealer, Counters(), refresher_id="here")
    store.store(harness.lease, harness.imported, TokenGrant("at", 60, "rt-2"))
    assert harness.redis.hget(record, "refreshing_by") == left


def test_grant_does_not_revive_a_disabled_credential(harness: TokenHarness):
    credentials = Credentials(harness.redis)
    credentials.set_state("default", harness.credential_id, "disabled", "a person")
    harness.build_token().get()
    assert credentials.get(harness.credential_id, ["default"]).state == "disabled"


def test_valid_token_is_used_while_its_early_renewal_fails(harness: TokenHarness, upstream: Upstream):
    token = harness.build_token()
    first = token.get()
    upstream.faults(token_error=1)
    token.renew_at = 0.0
    assert token.get() == first
    assert token.is_fresh()
    with pytest.raises(TokenEndpointDown):
        token.get(stale=first)


def test_request_does_not_wait_for_a_renewal_while_the_token_is_valid(
    harness: TokenHarness, replace_refresh: ReplaceRefresh
):
    may_end = Event()
    presented: list[str] = []

    def refresh(token: str) -> TokenGrant:
        presented.append(token)
        if len(presented) > 1:
            may_end.wait()
        return TokenGrant(f"at-{len(presented)}", 30, "")

    replace_refresh(refresh)
    token = harness.build_token()
    assert token.get() == "at-1"
    token.renew_at = 0.0
    renewal = gevent.spawn(token.get)
    eventually(lambda: len(presented) == 2)
    token.renew_at = 0.0
    assert (token.get(), token.is_usable(), token.is_fresh()) == ("at-1", True, False)
    may_end.set()
    assert renewal.get() == "at-2"
    assert token.get() == "at-2"


def test_refresh_that_takes_long_is_begun_earlier(harness: TokenHarness, replace_refresh: ReplaceRefresh):
    def refresh(_: str) -> TokenGrant:
        gevent.sleep(0.5)
        return TokenGrant("at", 2, "")

    replace_refresh(refresh)
    token = harness.build_token()
    token.get()
    assert token.renew_at - clock.now() <= 2 - 0.5 * RENEW_AHEAD_DURATIONS


def test_redis_without_an_append_only_file_is_an_error_in_the_log(harness: TokenHarness, unsealer: Unsealer, caplog):
    harness.redis.config_set("appendonly", "no")
    try:
        TokenStore(harness.redis, unsealer, harness.counters).durable_writer.check()
    finally:
        harness.redis.config_set("appendonly", "yes")
    assert [record.action for record in caplog.records if record.levelname == "ERROR"] == ["no_fsync"]


def test_cookies_of_one_credential_never_reach_another():
    cookies: list[str] = []

    def respond(environ, start_response):
        cookies.append(environ.get("HTTP_COOKIE", ""))
        start_response("200 OK", [("content-type", "application/json"), ("set-cookie", "session=first; Path=/")])
        return [b'{"access_token": "at"}']

    server = WSGIServer(("127.0.0.1", 0), respond, log=None)
    server.start()
    pool = PoolSettings(token_url=f"http://127.0.0.1:{server.server_port}/token")
    session = create_shared_session(pool.token_url, 4)
    for token in ("rt-1", "rt-2"):
        assert TokenEndpoint(pool, session).refresh(token).access_token == "at"
    server.stop()
    assert cookies == ["", ""]


def test_endpoint_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch):
    def respond(environ, start_response):
        start_response("200 OK", [("content-type", "application/json")])
        while True:
            yield b" "
            gevent.sleep(0.05)

    monkeypatch.setattr(client, "TOTAL_TIMEOUT_SECONDS", 0.5)
    server = WSGIServer(("127.0.0.1", 0), respond, log=None)
    server.start()
    pool = PoolSettings(token_url=f"http://127.0.0.1:{server.server_port}/token")
    with pytest.raises(TokenEndpointDown, match="took longer"):
        TokenEndpoint(pool, create_shared_session(pool.token_url, 4)).refresh("rt")
    server.stop()


def test_rotated_refresh_token_is_stored_although_its_access_token_cannot_be_used(
    harness: TokenHarness, replace_refresh: ReplaceRefresh
):
    replace_refresh(lambda *_: TokenGrant("", 0.0, "rt-next", "a token of another type"))
    with pytest.raises(TokenEndpointDown, match="another type"):
        harness.build_token().get()
    assert harness.stored_refresh_token() == "rt-next"
