"""Requests go to the pools that serve their model, by priority, weight and load."""

from collections import Counter
from collections.abc import Mapping

import pytest

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.credentials.pool_rest import PoolRest
from shared.errors import ApiError
from shared.settings.schema import PoolSettings, Settings
from web.request.capacity.pool_selection import PoolSelector

ANY_KEY = ApiKey(id="k", hint="sk-…", created_at=0)


class FakeAvailability:
    """Which pools have a usable credential, and for how many seconds which ones rest, for the upstream's `limited`."""

    def __init__(self, *without: str, **resting: float) -> None:
        self.without = without
        self.resting = resting
        self.limited = "m"
        self.paused: tuple[str, ...] = ()

    def is_usable(self, pool: str) -> bool:
        return pool not in self.without

    def is_paused(self, pool: str) -> bool:
        return pool in self.paused

    def find_rest(self, pool: str, model: str = "") -> PoolRest | None:
        is_resting = pool in self.resting and model == self.limited
        return PoolRest((clock.now() + self.resting[pool],)) if is_resting else None


class FakeOverload:
    """The expected wait of each pool, in seconds."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds

    def expected_wait(self, pool: str, model: str = "") -> float:
        return self.seconds.get(pool, 0.0)


def build_selector(
    *pools: PoolSettings,
    without: tuple[str, ...] = (),
    resting: Mapping[str, float] | None = None,
    paused: tuple[str, ...] = (),
    **waits: float,
) -> PoolSelector:
    settings, availability = Settings(pools=pools, queue_timeout=300), FakeAvailability(*without, **(resting or {}))
    availability.paused = paused
    return PoolSelector(settings, availability, FakeOverload(**waits))  # type: ignore[arg-type]


def selected(selector: PoolSelector, model: str = "m") -> set[str]:
    return {selector.select(model, ANY_KEY).name for _ in range(200)}


def test_pool_without_models_serves_every_model():
    assert build_selector(PoolSettings(name="any")).select("whatever", ANY_KEY).name == "any"


def test_first_pool_that_serves_the_model_is_selected():
    first = PoolSettings(name="a", models=("x",))
    selector = build_selector(first, PoolSettings(name="b", models=("x", "y"), model_map={"z": "y"}, priority=1))
    assert [selector.select(model, ANY_KEY).name for model in ("x", "y", "z")] == ["a", "b", "b"]


def test_unknown_model_is_a_404():
    with pytest.raises(ApiError) as caught:
        build_selector(PoolSettings(models=("x",))).select("nope", ANY_KEY)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_key_is_limited_to_its_pools_and_models():
    selector = build_selector(PoolSettings(name="a"), PoolSettings(name="b"))
    key = ANY_KEY.model_copy(update={"pools": ("b",), "models": ("gpt-*",)})
    assert selector.select("gpt-4", key).name == "b"
    assert [pool.name for pool in selector.list_open_to(key)] == ["b"]
    with pytest.raises(ApiError):
        selector.select("other", key)


def test_pools_of_the_same_priority_share_by_weight():
    selector = build_selector(
        PoolSettings(name="a", weight=3), PoolSettings(name="b"), PoolSettings(name="c", priority=1)
    )
    taken = Counter(selector.select("m", ANY_KEY).name for _ in range(2000))
    assert taken["c"] == 0
    assert taken["a"] / taken["b"] == pytest.approx(3, rel=0.25)


def test_pool_without_a_usable_credential_is_skipped():
    first, second = PoolSettings(name="a"), PoolSettings(name="b", priority=1)
    assert selected(build_selector(first, second)) == {"a"}
    assert selected(build_selector(first, second, without=("a",))) == {"b"}
    assert selected(build_selector(first, second, without=("a", "b"))) == {"a"}


def test_paused_pool_is_skipped_while_another_one_serves_the_model():
    first, second = PoolSettings(name="a"), PoolSettings(name="b", priority=1, models=("m",))
    assert selected(build_selector(first, second, paused=("a",))) == {"b"}
    assert selected(build_selector(first, second, paused=("a",)), "other") == {"a"}
    assert selected(build_selector(first, second, paused=("a", "b"))) == {"a"}


def test_pool_that_rests_for_longer_than_a_request_may_wait_is_skipped():
    first, second = PoolSettings(name="a"), PoolSettings(name="b", priority=1, total_timeout=30)
    assert selected(build_selector(first, second, resting={"a": 250})) == {"a"}
    assert selected(build_selector(first, second, resting={"a": 350})) == {"b"}
    assert selected(build_selector(first, second, resting={"a": 350, "b": 20})) == {"b"}
    assert selected(build_selector(first, second, resting={"a": 350, "b": 50})) == {"a"}


def test_pool_that_rests_for_a_model_serves_others():
    first = PoolSettings(name="a", model_map={"mapped": "m"})
    selector = build_selector(first, PoolSettings(name="b", priority=1), resting={"a": 350})
    assert selected(selector, "other") == {"a"}
    assert selected(selector, "mapped") == {"b"}


def test_pool_with_a_long_wait_overflows_into_the_next():
    first, second = PoolSettings(name="a", overflow_wait=5), PoolSettings(name="b", priority=1, overflow_wait=5)
    assert selected(build_selector(first, second, a=4.0)) == {"a"}
    assert selected(build_selector(first, second, a=6.0)) == {"b"}
    assert selected(build_selector(first, second, a=6.0, b=7.0)) == {"a"}
    assert selected(build_selector(PoolSettings(name="a"), second, a=600.0)) == {"a"}
