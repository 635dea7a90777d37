from collections import Counter

import pytest

from shared.api_keys.api_key import ApiKey
from shared.errors import ApiError
from shared.settings.schema import PoolSettings, Settings
from web.request.pool_selection import PoolSelector

ANY = ApiKey(id="k", hint="sk-…", created_at=0)


class Usables:
    """Which pools have an account in service."""

    def __init__(self, *without: str) -> None:
        self.without = without

    def is_usable(self, pool: str) -> bool:
        return pool not in self.without


class Waits:
    """How long the pools let wait."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds

    def expected_wait(self, pool: str) -> float:
        return self.seconds.get(pool, 0.0)


def pools_of(*pools: PoolSettings, without: tuple[str, ...] = (), **waits: float) -> PoolSelector:
    return PoolSelector(Settings(pools=pools), Usables(*without), Waits(**waits))  # type: ignore[arg-type]


def chosen(pools: PoolSelector, model: str = "m") -> set[str]:
    return {pools.select(model, ANY).name for _ in range(200)}


def test_a_pool_without_models_takes_every_name():
    assert pools_of(PoolSettings(name="any")).select("whatever", ANY).name == "any"


def test_the_first_pool_that_serves_the_model_takes_it():
    first = PoolSettings(name="a", models=("x",))
    pools = pools_of(first, PoolSettings(name="b", models=("x", "y"), model_map={"z": "y"}, priority=1))
    assert [pools.select(model, ANY).name for model in ("x", "y", "z")] == ["a", "b", "b"]


def test_an_unknown_model_is_a_404():
    with pytest.raises(ApiError) as caught:
        pools_of(PoolSettings(models=("x",))).select("nope", ANY)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_a_key_sees_only_its_pools_and_models():
    pools = pools_of(PoolSettings(name="a"), PoolSettings(name="b"))
    key = ANY.model_copy(update={"pools": ("b",), "models": ("gpt-*",)})
    assert pools.select("gpt-4", key).name == "b"
    assert [pool.name for pool in pools.list_open_to(key)] == ["b"]
    with pytest.raises(ApiError):
        pools.select("other", key)


def test_pools_of_the_same_priority_share_by_weight():
    pools = pools_of(PoolSettings(name="a", weight=3), PoolSettings(name="b"), PoolSettings(name="c", priority=1))
    taken = Counter(pools.select("m", ANY).name for _ in range(2000))
    assert taken["c"] == 0
    assert taken["a"] / taken["b"] == pytest.approx(3, rel=0.25)


def test_a_pool_without_an_account_leaves_its_requests_to_the_next():
    first, second = PoolSettings(name="a"), PoolSettings(name="b", priority=1)
    assert chosen(pools_of(first, second)) == {"a"}
    assert chosen(pools_of(first, second, without=("a",))) == {"b"}
    assert chosen(pools_of(first, second, without=("a", "b"))) == {"a"}


def test_a_pool_that_lets_wait_too_long_overflows_into_the_next():
    first, second = PoolSettings(name="a", overflow_wait=5), PoolSettings(name="b", priority=1, overflow_wait=5)
    assert chosen(pools_of(first, second, a=4.0)) == {"a"}
    assert chosen(pools_of(first, second, a=6.0)) == {"b"}
    assert chosen(pools_of(first, second, a=6.0, b=7.0)) == {"a"}
    assert chosen(pools_of(PoolSettings(name="a"), second, a=600.0)) == {"a"}
