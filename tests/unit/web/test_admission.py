import pytest

from shared.errors import ApiError
from shared.key_fields import ApiKey
from shared.settings import PoolSettings
from web.admission import DrainRate, Pools

ANY = ApiKey(id="k", hint="sk-…", created_at=0)


def test_a_pool_without_models_takes_every_name():
    assert Pools([PoolSettings(name="any")]).for_model("whatever", ANY).name == "any"


def test_the_first_pool_that_serves_the_model_takes_it():
    pools = Pools(
        [PoolSettings(name="a", models=("x",)), PoolSettings(name="b", models=("x", "y"), model_map={"z": "y"})]
    )
    assert [pools.for_model(model, ANY).name for model in ("x", "y", "z")] == ["a", "b", "b"]


def test_an_unknown_model_is_a_404():
    with pytest.raises(ApiError) as caught:
        Pools([PoolSettings(models=("x",))]).for_model("nope", ANY)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_a_key_sees_only_its_pools_and_models():
    pools = Pools([PoolSettings(name="a"), PoolSettings(name="b")])
    key = ANY.model_copy(update={"pools": ("b",), "models": ("gpt-*",)})
    assert pools.for_model("gpt-4", key).name == "b"
    assert [pool.name for pool in pools.of(key)] == ["b"]
    with pytest.raises(ApiError):
        pools.for_model("other", key)


@pytest.mark.parametrize(
    ("rate", "waiting", "seconds"), [(10, 100, 10), (10, 0, 1), (1, 1000, 60), (0, 5, 60), (0, 0, 1)]
)
def test_the_time_to_wait_follows_the_measured_rate_within_bounds(rate: float, waiting: int, seconds: int):
    drain = DrainRate(None, ["default"])
    drain._rates["default"] = rate
    assert drain.retry_after("default", waiting) == seconds
