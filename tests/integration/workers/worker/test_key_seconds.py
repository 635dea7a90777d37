"""The workers' time is counted for the API keys whose requests they run, also while those run."""

from redis import Redis

from shared import keys
from shared.observability.key_seconds import SLOT_TTL_SECONDS, SLOTS, KeySeconds, read_slots
from tests.integration.harness import WorkerHarness, collect_frames, streaming_body
from tests.waiting import eventually


def sum_up(redis: Redis, pool: str = "default") -> dict[str, float]:
    slots = read_slots(redis, pool)
    assert len(slots) == SLOTS
    return {key: round(sum(slot.get(key, 0.0) for slot in slots), 3) for key in set().union(*slots)}


def test_seconds_are_summed_by_pool_and_key_over_processes_and_forgotten(redis: Redis):
    for seconds in (1.5, 2.0):
        process = KeySeconds()
        process.add("default", "a", seconds)
        process.add("default", "a", 1.0)
        process.add("other", "b", 4.0)
        process.flush(redis)
        process.flush(redis)
    assert (sum_up(redis), sum_up(redis, "other")) == ({"a": 5.5}, {"b": 8.0})
    (name,) = redis.keys(keys.key_seconds("other", "*"))  # type: ignore[arg-type]
    assert 0 < redis.ttl(name) <= SLOT_TTL_SECONDS


def test_private_credentials_leave_nothing(redis: Redis):
    counted = KeySeconds()
    counted.add("default~abc", "a", 1.0)
    counted.flush(redis)
    assert redis.keys("*~*") == []


def test_running_request_counts_and_is_counted_once(harness: WorkerHarness):
    harness.upstream.pace(chunks=1000, chunk_delay=0.2)
    mailbox = harness.enqueue(body=streaming_body(), stream=True, key="k1")
    mailbox.get(30)
    runner, counted = harness.worker.runner, harness.services.key_seconds
    runner.count_key_seconds()
    counted.flush(harness.redis)
    running = sum_up(harness.redis)["k1"]
    assert running > 0
    runner.cancel("client_gone")
    eventually(lambda: not runner.busy_since)
    counted.flush(harness.redis)
    after = sum_up(harness.redis)
    assert (set(after), after["k1"] >= running, after["k1"] <= runner.seconds_worked()) == ({"k1"}, True, True)
    runner.count_key_seconds()
    counted.flush(harness.redis)
    assert sum_up(harness.redis) == after


def test_each_key_gets_what_its_requests_took(harness: WorkerHarness):
    for number, key in enumerate(("a", "b")):
        assert collect_frames(harness.enqueue(f"req_{number}", key=key))
    eventually(lambda: not harness.worker.runner.busy_since)
    harness.services.key_seconds.flush(harness.redis)
    assert set(sum_up(harness.redis)) == {"a", "b"}
