"""The verdict whether a pool's upstream counts limits per account or per model, as several processes come to it."""

import time

import pytest
from redis import Redis

from shared import keys
from tests.integration.workers.jobs.simulated_pool import SimulatedPool
from workers.credentials.account_limits.verdict import (
    GO_ON,
    MAX_CONTRADICTIONS,
    NOT_A_MODEL,
    PER_ACCOUNT,
    PER_MODEL,
    TRY,
    UNKNOWN,
    WAIT,
    LimitVerdict,
)

#: Seconds for which a credential rests for a model.
REST = 100.0


@pytest.fixture
def pool(redis: Redis) -> SimulatedPool:
    return SimulatedPool(redis)


def rest(redis: Redis, model: str, *, credential: str = "c1", seconds: float = REST, **changes: bool) -> str:
    """A credential rests for a model; returns the verdict of a process that knows only what Redis says."""
    return LimitVerdict(redis, "default").record_rest(credential, model, time.time() + seconds, "auto", **changes)


def decide(redis: Redis, *, credential: str = "c1", seconds: float = REST / 2) -> str:
    """What another process decides about a credential that rests as a whole for so long, which a model explains."""
    return LimitVerdict(redis, "default").decide(credential, time.time() + seconds, "auto")


def serve_another_model(redis: Redis, credential: str = "c1") -> None:
    LimitVerdict(redis, "default").record_served(credential, was_trial=True)


def forget_confirmation(redis: Redis) -> None:
    """The last one was long ago."""
    redis.hset(keys.account_limits("default"), "confirmed_at", time.time() - 60)


def test_credential_that_rests_for_another_reason_tries_nothing(redis: Redis, pool: SimulatedPool):
    pool.enqueue("a", model="B")
    assert decide(redis) == NOT_A_MODEL
    rest(redis, "A", seconds=REST / 10)
    assert decide(redis) == NOT_A_MODEL, "the model's rest ends long before"


@pytest.mark.parametrize("band", ["interactive", "batch"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (99, 250), (250, 99)])
def test_job_of_another_model_is_found_at_either_end_of_a_queue(
    redis: Redis, pool: SimulatedPool, band: str, before: int, after: int
):
    rest(redis, "A")
    pool.enqueue("a", before, model="A", band=band)
    assert decide(redis) == WAIT
    pool.enqueue("a", model="B", band=band)
    pool.enqueue("a", after, model="A", band=band)
    assert decide(redis) == TRY


def test_job_of_another_model_is_found_within_a_long_queue_in_time(redis: Redis, pool: SimulatedPool):
    rest(redis, "A")
    pool.enqueue("a", 200, model="A")
    pool.enqueue("a", model="B")
    pool.enqueue("a", 200, model="A")
    assert TRY in [decide(redis) for _ in range(200)]


def test_one_trial_at_a_time(redis: Redis, pool: SimulatedPool):
    for credential in ("c1", "c2"):
        rest(redis, "A", credential=credential)
    pool.enqueue("a", 2, model="B")
    assert [decide(redis, credential=credential) for credential in ("c1", "c2")] == [TRY, WAIT]
    LimitVerdict(redis, "default").end_trial("c2")
    assert decide(redis, credential="c2") == WAIT, "it was not its own"
    LimitVerdict(redis, "default").end_trial("c1")
    assert decide(redis, credential="c2") == TRY


def test_refused_trial_is_repeated_later_each_time(redis: Redis, pool: SimulatedPool):
    pool.enqueue("a", model="B")
    pauses = []
    for _ in range(3):
        assert rest(redis, "A", was_trial=True) == PER_ACCOUNT
        assert decide(redis) == WAIT
        pauses.append(float(redis.hget(keys.account_limits("default"), "retry_at") or 0) - time.time())
        redis.hset(keys.account_limits("default"), "retry_at", time.time() - 1)
        assert decide(redis) == TRY
        redis.delete(keys.limit_trial("default"))
    assert pauses[1] > 1.5 * pauses[0] and pauses[2] > 1.5 * pauses[1]


def test_served_trial_ends_it_and_lets_all_go_on(redis: Redis, pool: SimulatedPool):
    rest(redis, "A", was_trial=True)
    redis.set(keys.limit_trial("default"), "c1")
    serve_another_model(redis)
    assert decide(redis) == GO_ON
    assert not redis.exists(keys.limit_trial("default"))
    assert rest(redis, "A", was_trial=True) == PER_ACCOUNT
    retry_at = float(redis.hget(keys.account_limits("default"), "retry_at") or 0)
    assert retry_at < time.time() + 90, "what was refused before counts no more"


def test_trial_of_another_credential_is_not_ended(redis: Redis):
    redis.set(keys.limit_trial("default"), "c2")
    serve_another_model(redis, "c1")
    assert redis.get(keys.limit_trial("default")) == b"c2"


def contradict(redis: Redis, times: int = 1, **changes: bool) -> list[str]:
    """Refusals of a credential that rests for another model; returns the verdicts."""
    return [rest(redis, "B", **{"was_refused": True, **changes}) for _ in range(times)]


def test_contradictions_reverse_the_verdict(redis: Redis):
    serve_another_model(redis)
    forget_confirmation(redis)
    rest(redis, "A")
    assert contradict(redis, MAX_CONTRADICTIONS) == [*[PER_MODEL] * (MAX_CONTRADICTIONS - 1), PER_ACCOUNT]


def test_confirmation_takes_contradictions_back(redis: Redis):
    serve_another_model(redis)
    forget_confirmation(redis)
    rest(redis, "A")
    contradict(redis, MAX_CONTRADICTIONS - 1)
    serve_another_model(redis)
    forget_confirmation(redis)
    assert contradict(redis, MAX_CONTRADICTIONS - 1) == [PER_MODEL] * (MAX_CONTRADICTIONS - 1)


def test_refusals_just_after_a_confirmation_contradict_nothing(redis: Redis):
    serve_another_model(redis)
    redis.hset(keys.account_limits("default"), "confirmed_at", time.time() + 60)
    rest(redis, "A")
    assert contradict(redis, MAX_CONTRADICTIONS) == [PER_MODEL] * MAX_CONTRADICTIONS


def test_rests_told_by_headers_contradict_nothing(redis: Redis):
    serve_another_model(redis)
    forget_confirmation(redis)
    rest(redis, "A")
    assert contradict(redis, MAX_CONTRADICTIONS, was_refused=False) == [PER_MODEL] * MAX_CONTRADICTIONS


@pytest.mark.parametrize("seconds", [-1.0, None])
def test_refusals_of_the_only_model_contradict_nothing(redis: Redis, seconds: float | None):
    """`seconds`: of its rest for another model, which is over; None for none."""
    serve_another_model(redis)
    forget_confirmation(redis)
    if seconds:
        rest(redis, "A", seconds=seconds)
    assert contradict(redis, MAX_CONTRADICTIONS + 1) == [PER_MODEL] * (MAX_CONTRADICTIONS + 1)


def test_rest_is_never_shortened_and_is_forgotten_after_its_end(redis: Redis):
    until = time.time() + REST
    rest(redis, "A")
    rest(redis, "A", seconds=1)
    rest(redis, "B", credential="c2", seconds=1)
    rest(redis, "A", credential="c2", seconds=1)
    assert float(redis.hget(keys.resting_models("c1"), "A") or 0) >= until
    assert (redis.zscore(keys.resting_by_pool("default"), "A") or 0) >= until
    assert REST < redis.ttl(keys.resting_models("c1")) <= REST + 62


def test_nothing_is_recorded_where_only_a_verdict_per_model_asks_for_it(redis: Redis):
    assert rest(redis, "A", always=False) == UNKNOWN
    assert not redis.exists(keys.resting_models("c1"))
    serve_another_model(redis)
    assert rest(redis, "A", always=False) == PER_MODEL
    assert redis.exists(keys.resting_models("c1"))
