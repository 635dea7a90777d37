"""What 401s mean for an API key: a second chance, its end, or an upstream that refuses them all."""

import pytest
from redis import Redis

from shared import clock, keys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import InvalidGrant, TokenError, TokenRefused
from tests.token_refresher import TokenHarness
from tests.upstream import Upstream
from tests.waiting import eventually
from workers.credentials.access_token import RefreshServices
from workers.credentials.api_key import ApiKey
from workers.credentials.leases import Leases


class Keys:
    """API keys of one pool, each leased by this process."""

    def __init__(self, harness: TokenHarness, number: int, patience: float) -> None:
        self.harness = harness
        store = Credentials(harness.redis)
        refresher = harness.build_refresher()
        self.ids = [store.add("default", f"sk-key-number-{i}", kind="api_key")[0] for i in range(number)]
        leases = Leases(harness.redis, "a").claim("default", self.ids, number)
        services = RefreshServices(harness.token_store, refresher, {"default": number}, harness.counters, patience)
        by_id = {lease.credential_id: lease for lease in leases}
        self.slots = [[ApiKey(by_id[id_], harness.breaker, services) for _ in range(2)] for id_ in self.ids]

    def refuse(self, number: int, slot: int = 0) -> TokenError:
        """A request of one of the key's slots has got a 401."""
        key = self.slots[number][slot]
        with pytest.raises(TokenError) as caught:
            key.get(stale=key.get())
        return caught.value

    def count_refusals(self, number: int) -> int:
        return self.harness.token_store.load_refusals(self.ids[number]).count


@pytest.fixture
def build_keys(redis: Redis, unsealer: Unsealer, upstream: Upstream):
    harness = TokenHarness(redis, unsealer, upstream)
    Credentials(redis).remove("default", harness.credential_id)
    return lambda number, patience: Keys(harness, number, patience)


def test_requests_refused_at_the_same_time_are_one_refusal(build_keys):
    api_keys = build_keys(4, patience=600.0)
    first, second = api_keys.refuse(0, slot=0), api_keys.refuse(0, slot=1)
    assert isinstance(first, TokenRefused)
    assert isinstance(second, TokenRefused)
    assert api_keys.count_refusals(0) == 1
    assert 0 < second.retry_after <= first.retry_after


def test_second_refusal_after_the_pause_is_the_end(build_keys):
    api_keys = build_keys(4, patience=0.01)
    assert isinstance(api_keys.refuse(0), TokenRefused)
    refused = eventually(lambda: error if isinstance(error := api_keys.refuse(0), InvalidGrant) else None)
    assert refused.code == "api_key_refused"


def test_success_between_two_refusals_is_a_new_beginning(build_keys):
    api_keys = build_keys(4, patience=0.01)
    api_keys.refuse(0)
    api_keys.slots[0][0].record_accepted()
    eventually(lambda: api_keys.count_refusals(0) == 0)
    assert isinstance(api_keys.refuse(0), TokenRefused)


def open_breaker(api_keys: Keys, *numbers: int) -> None:
    for number in numbers:
        api_keys.refuse(number)
    assert api_keys.harness.redis.exists(keys.token_breaker("default"))


def test_no_key_dies_while_all_are_refused_and_each_is_tried_less_often(build_keys, monkeypatch: pytest.MonkeyPatch):
    api_keys, started_at, now, pauses = build_keys(3, patience=0.01), clock.now(), 0.0, []
    monkeypatch.setattr(clock, "now", lambda: started_at + now)
    open_breaker(api_keys, 0, 1, 2)
    for _ in range(5):
        refused = api_keys.refuse(2)
        assert (isinstance(refused, TokenRefused), refused.code) == (True, "api_keys_refused")
        pauses.append(refused.retry_after)
        assert api_keys.refuse(2).retry_after == pytest.approx(refused.retry_after), "it counts once per pause"
        now += refused.retry_after
    assert pauses == sorted(pauses)
    assert pauses[-1] > 5 * pauses[0]


def test_accepted_key_closes_the_breaker_and_begins_with_short_pauses_again(
    build_keys, monkeypatch: pytest.MonkeyPatch
):
    api_keys, started_at, now = build_keys(6, patience=0.01), clock.now(), 0.0
    monkeypatch.setattr(clock, "now", lambda: started_at + now)
    open_breaker(api_keys, 0, 1, 2)
    for _ in range(4):
        now += (longest := api_keys.refuse(2).retry_after)
    api_keys.slots[2][0].record_accepted()
    eventually(lambda: not api_keys.harness.redis.exists(keys.token_breaker("default")))
    open_breaker(api_keys, 3, 4, 5)
    now += 60
    assert api_keys.refuse(2).retry_after < longest / 2
