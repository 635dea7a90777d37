"""Invariant I4: a rotated refresh token is durable before its access token is used; no fault kills a credential."""

from collections.abc import Callable

import gevent
import pytest
import requests
from gevent.lock import BoundedSemaphore
from gevent.pywsgi import WSGIServer
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.credentials.sealing import fingerprint
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import InvalidGrant, LeaseLost, TokenEndpointDown, TokenError
from shared.observability.counters import Counters
from shared.settings.schema import PoolSettings
from tests.upstream import Upstream, first_refresh_tokens
from workers.credentials import access_token as tokens_module
from workers.credentials.access_token import AccessToken
from workers.credentials.leases import Lease, Leases
from workers.credentials.token_endpoint import TokenGrant, refresh
from workers.credentials.token_store import FSYNC_TIMEOUT_MS, TokenStore
from workers.upstream.client import create_shared_session

Asked = Callable[[requests.Session, PoolSettings, str], TokenGrant]


class Farm:
    """One leased credential and what is needed to refresh it."""

    def __init__(self, redis: Redis, unsealer: Unsealer, upstream: Upstream, **pool: str) -> None:
        self.redis = redis
        self.store = TokenStore(redis, unsealer)
        self.first = first_refresh_tokens(3)[0]
        self.id, _ = Credentials(redis).add("default", self.first)
        (self.lease,) = Leases(redis, "a").claim("default", [self.id], 1)
        self.pool = PoolSettings(upstream_url=upstream.url, token_url=upstream.token_url, **pool)
        self.counters = Counters()

    def token(self, lease: Lease | None = None) -> AccessToken:
        return AccessToken(
            lease or self.lease, self.pool, self.store, requests.Session(), self.counters, BoundedSemaphore(4)
        )

    def stored(self) -> str:
        return self.store.load(self.id)[0]


def slow_refresh(session: requests.Session, pool: PoolSettings, token: str) -> TokenGrant:
    """A token endpoint that takes its time."""
    gevent.sleep(0.05)
    return TokenGrant("at", 60, "rt-next")


@pytest.fixture
def farm(redis: Redis, unsealer: Unsealer, upstream: Upstream) -> Farm:
    return Farm(redis, unsealer, upstream)


@pytest.fixture
def refreshes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Asked], None]:
    """Puts a token endpoint of the test's own in place."""
    return lambda ask: monkeypatch.setattr(tokens_module, "refresh", ask)


@pytest.mark.parametrize("way", ["form", "json", "bearer"])
def test_an_access_token_is_had_in_each_way_and_used_again(redis, unsealer, upstream, way: str):
    farm = Farm(redis, unsealer, upstream, token_request=way)
    token = farm.token()
    first = token.get()
    assert token.get() == first
    assert upstream.counters()["refreshes"] == 1


def test_a_rotated_token_is_stored_before_its_access_token_is_used(farm: Farm):
    farm.token().get()
    renewed = farm.stored()
    assert renewed != farm.first
    assert farm.redis.hget(keys.fingerprints("default"), fingerprint(renewed)).decode() == farm.id
    assert Credentials(farm.redis).get(farm.id, ["default"]).rotations == 1


def test_a_grant_is_kept_until_redis_takes_it_and_only_then_used(farm: Farm, upstream: Upstream, monkeypatch):
    store, tries = farm.store.store, []

    def refuse_twice(*given) -> None:
        tries.append(farm_token._token)
        if len(tries) < 3:
            raise RedisError("away")
        store(*given)

    farm_token = farm.token()
    monkeypatch.setattr(farm.store, "store", refuse_twice)
    assert farm_token.get()
    assert tries == ["", "", ""]
    assert farm.stored() != farm.first
    assert upstream.counters()["refreshes"] == 1


def test_a_refresh_on_its_way_is_waited_for_before_the_lease_goes(farm: Farm, refreshes):
    refreshes(slow_refresh)
    token = farm.token()
    gevent.spawn(token.get)
    gevent.sleep(0.01)
    token.wait_for_refresh()
    assert farm.stored() == "rt-next"


def test_an_imported_token_is_known_after_any_number_of_rotations(farm: Farm):
    token = farm.token()
    for _ in range(3):
        token.get(stale=token.get())
    report = Credentials(farm.redis).import_lines("default", [farm.first, farm.stored()])
    assert (report.count("added"), report.count("duplicate")) == (0, 2)
    assert farm.redis.hlen(keys.fingerprints("default")) == 2


def test_an_answer_without_a_refresh_token_keeps_the_old_one(farm: Farm, upstream: Upstream):
    upstream.accounts(rotate=False)
    farm.token().get()
    assert farm.stored() == farm.first


def test_another_worker_takes_the_access_token_over(farm: Farm, upstream: Upstream):
    first = farm.token().get()
    assert farm.token().get() == first
    assert upstream.counters()["refreshes"] == 1


def test_many_who_ask_at_once_cause_one_refresh(farm: Farm, upstream: Upstream):
    token = farm.token()
    waiting = [gevent.spawn(token.get) for _ in range(20)]
    assert len({one.get(timeout=5) for one in waiting}) == 1
    assert upstream.counters()["refreshes"] == 1


def test_a_refresh_is_not_ended_by_whoever_waits_for_it(farm: Farm, refreshes):
    refreshes(slow_refresh)
    token = farm.token()
    impatient = gevent.spawn(token.get)
    gevent.sleep(0.01)
    impatient.kill()
    gevent.sleep(0.1)
    assert farm.stored() == "rt-next"


def test_a_token_is_renewed_before_it_expires(farm: Farm, refreshes):
    grants = iter([TokenGrant("short", 0.4, None), TokenGrant("next", 60, None)])
    refreshes(lambda *_: next(grants))
    token = farm.token()
    assert token.get() == "short"
    gevent.sleep(0.36)
    assert token.get() == "next"


def test_invalid_grant_is_final_when_the_store_has_no_other_token(farm: Farm, refreshes):
    asked = []

    def refuse(session: requests.Session, pool: PoolSettings, token: str) -> TokenGrant:
        asked.append(token)
        raise InvalidGrant("no")

    refreshes(refuse)
    with pytest.raises(InvalidGrant):
        farm.token().get()
    assert asked == [farm.first]


def test_invalid_grant_is_tried_again_once_with_the_token_that_somebody_else_stored(
    farm: Farm, unsealer: Unsealer, refreshes
):
    asked = []

    def refuse_the_first(session: requests.Session, pool: PoolSettings, token: str) -> TokenGrant:
        asked.append(token)
        if token == farm.first:
            sealed = unsealer.sealer.seal("rotated elsewhere", farm.id)
            fields = {"sealed": sealed, "fingerprint": fingerprint("rotated elsewhere")}
            farm.redis.hset(keys.credential(farm.id), mapping=fields)
            raise InvalidGrant("no")
        return TokenGrant("at", 60, None)

    refreshes(refuse_the_first)
    assert farm.token().get() == "at"
    assert asked == [farm.first, "rotated elsewhere"]


def test_a_failing_endpoint_says_nothing_about_the_credential(farm: Farm, upstream: Upstream):
    upstream.faults(token_error=1)
    with pytest.raises(TokenEndpointDown):
        farm.token().get()
    upstream.faults()
    assert farm.token().get()


def test_an_endpoint_that_can_not_be_reached_says_nothing_either(farm: Farm):
    farm.pool = PoolSettings(token_url="http://127.0.0.1:9/token")
    with pytest.raises(TokenEndpointDown):
        farm.token().get()


def test_nobody_refreshes_without_the_lease(farm: Farm, upstream: Upstream):
    farm.lease.lost = True
    with pytest.raises(LeaseLost):
        farm.token().get()
    assert upstream.counters()["refreshes"] == 0


def test_a_token_that_was_rotated_while_the_lease_went_is_kept_but_not_used(farm: Farm, refreshes):
    def lose(session: requests.Session, pool: PoolSettings, token: str) -> TokenGrant:
        farm.redis.set(farm.lease.key, "b:99")
        return TokenGrant("at", 60, "rt-next")

    refreshes(lose)
    with pytest.raises(LeaseLost):
        farm.token().get()
    assert farm.stored() == "rt-next"


def test_a_late_answer_does_not_overwrite_a_newer_token(farm: Farm, unsealer: Unsealer):
    farm.redis.hset(keys.credential(farm.id), mapping={"fingerprint": fingerprint("newer")})
    with pytest.raises(LeaseLost):
        farm.store.store(farm.lease, farm.first, TokenGrant("at", 60, "older"))
    assert farm.stored() == farm.first


def test_a_removed_credential_has_no_token(farm: Farm):
    Credentials(farm.redis).remove("default", farm.id)
    with pytest.raises(TokenError, match="gone"):
        farm.token().get()


def test_refreshes_are_counted_by_outcome(farm: Farm, upstream: Upstream):
    farm.token().get()
    upstream.accounts(kill=0)
    with pytest.raises(InvalidGrant):
        farm.token().get(stale=farm.token().get())
    assert {field[1] for field in farm.counters._values} == {("ok",), ("invalid_grant",)}


def test_the_token_that_was_replaced_is_tried_when_the_new_one_never_became_good(farm: Farm, refreshes):
    good = {farm.first: TokenGrant("at-1", 0.1, "rt-bad")}

    def ask(session: requests.Session, pool: PoolSettings, token: str) -> TokenGrant:
        if token not in good:
            raise InvalidGrant("refused")
        return good[token]

    refreshes(ask)
    token = farm.token()
    assert token.get() == "at-1"
    assert farm.stored() == "rt-bad"
    good[farm.first] = TokenGrant("at-2", 60, "rt-good")
    assert token.get(stale="at-1") == "at-2"
    assert farm.stored() == "rt-good"
    good.clear()
    with pytest.raises(InvalidGrant):
        token.get(stale="at-2")


def test_a_credential_called_dead_while_its_grant_was_on_its_way_lives(farm: Farm, refreshes):
    credentials = Credentials(farm.redis)

    def ask(session: requests.Session, pool: PoolSettings, token: str) -> TokenGrant:
        credentials.set_state("default", farm.id, "dead", "invalid_grant")
        return TokenGrant("at", 60, "rt-next")

    refreshes(ask)
    farm.token().get()
    found = credentials.get(farm.id, ["default"])
    assert (found.state, found.reason) == ("active", "")


def test_a_disabled_credential_is_not_revived_by_a_grant(farm: Farm):
    credentials = Credentials(farm.redis)
    credentials.set_state("default", farm.id, "disabled", "a person")
    farm.token().get()
    assert credentials.get(farm.id, ["default"]).state == "disabled"


def test_a_token_that_is_still_good_is_used_while_its_early_renewal_fails(farm: Farm, upstream: Upstream):
    token = farm.token()
    first = token.get()
    upstream.faults(token_error=1)
    token.renew_at = 0.0
    assert token.get() == first
    assert token.is_fresh()
    with pytest.raises(TokenEndpointDown):
        token.get(stale=first)


class Waiting:
    """A Redis that can tell when a write is on disk, in front of one that is too old for it."""

    def __init__(self, redis: Redis, answer: object) -> None:
        self._redis = redis
        self._answer = answer
        self.asked: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._redis, name)

    def info(self, section: str) -> dict[str, str]:
        return {"redis_version": "7.2.0"}

    def pipeline(self, *, transaction: bool) -> object:
        pipe = self._redis.pipeline(transaction=transaction)
        execute = pipe.execute

        def note(*command: object) -> None:
            assert len(pipe.command_stack) == 1, "it waits on the connection that wrote"
            self.asked.append(command)

        pipe.execute_command, ask = (
            (lambda *command, **options: note(*command) if command[0] == "WAITAOF" else ask(*command, **options)),
            pipe.execute_command,
        )
        pipe.execute = lambda **options: [*execute(**options), *([self._answer] if self.asked else [])]
        return pipe


@pytest.mark.parametrize(
    ("answer", "said"), [([1, 0], ""), ([0, 0], "slow_fsync"), (RedisError("appendonly is off"), "no_fsync")]
)
def test_a_rotated_token_is_on_disk_before_it_is_used(farm: Farm, caplog, answer: object, said: str):
    farm.store._redis = Waiting(farm.redis, answer)  # type: ignore[assignment]
    farm.token().get()
    assert farm.store._redis.asked == [("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS)]
    assert [record.action for record in caplog.records if record.levelname == "WARNING"] == ([said] if said else [])


def test_no_cookie_of_one_account_reaches_another():
    seen: list[str] = []

    def answer(environ, start_response):
        seen.append(environ.get("HTTP_COOKIE", ""))
        start_response("200 OK", [("content-type", "application/json"), ("set-cookie", "session=first; Path=/")])
        return [b'{"access_token": "at"}']

    server = WSGIServer(("127.0.0.1", 0), answer, log=None)
    server.start()
    pool = PoolSettings(token_url=f"http://127.0.0.1:{server.server_port}/token")
    session = create_shared_session(pool.token_url, 4)
    for token in ("rt-1", "rt-2"):
        assert refresh(session, pool, token).access_token == "at"
    server.stop()
    assert seen == ["", ""]
