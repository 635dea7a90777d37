"""The census takes note of what each worker does, and the tape keeps it for two minutes."""

from collections import defaultdict
from collections.abc import Callable

import gevent
import pytest
from redis import Redis

from shared import clock, keys
from shared.observability.account_time.account_hours import AccountHours
from shared.observability.counters import Counters
from shared.observability.tape import ABSENT, LETTERS, TAPE_SECONDS, TAPE_TTL_SECONDS, TapeWriter, read_tape
from shared.settings.schema import Settings
from tests.integration.harness import WorkerHarness, streaming_body
from tests.waiting import eventually
from workers.process.census import Census, find_state
from workers.process.membership import Membership


class RecordedHours(AccountHours):
    """Takes note of what it is told."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        #: Credential and state -> seconds.
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)

    def add(self, credential_id: str, state: str, seconds: float) -> None:
        self.seconds[credential_id, state] += seconds


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def census(redis: Redis, counters: Counters) -> Census:
    return Census(redis, "p1", ["default"], counters)


def last_letters(redis: Redis) -> str:
    """The letters of the latest column."""
    return redis.xrevrange(keys.tape("p1"), count=1)[0][1][b"c"].decode()


def test_busy_and_idle_workers_are_told_apart(
    redis: Redis, start_harness: Callable[..., WorkerHarness], census: Census, counters: Counters
):
    harness = start_harness(credentials=2)
    census.hours = written = RecordedHours(redis)
    eventually(lambda: harness.count_idle() == 2)
    harness.upstream.pace(chunks=1000, chunk_delay=0.2)
    mailbox = harness.enqueue(body=streaming_body(), stream=True)
    mailbox.get(30)
    census.take(harness.workers)
    gevent.sleep(0.2)
    census.take(harness.workers)
    assert sorted(last_letters(redis)) == ["b", "i"]
    busy, idle = (counters.value("account_seconds", "default", state) for state in ("busy", "idle"))
    assert min(busy, idle) > 0
    assert busy + idle >= 2 * 0.2
    by_account = written.seconds
    assert {state for _, state in by_account} == {"busy", "idle"}
    assert len({credential for credential, _ in by_account}) == 2
    assert sum(by_account.values()) == pytest.approx(busy + idle)
    harness.queue.cancel("default", "req_1")


def test_reasons_not_to_work_are_told_apart(harness: WorkerHarness):
    worker = harness.worker
    harness.wait_until_idle()
    assert [find_state(worker, is_waited_for=waited) for waited in (False, True)] == ["idle", "idle_waiting"]
    harness.services.breakers["default"].mark_open()
    assert find_state(worker, is_waited_for=True) == "upstream_down"
    worker.runner.health.cooldown.begin(60)
    assert find_state(worker, is_waited_for=True) == "resting"
    harness.suspended = True
    assert find_state(worker, is_waited_for=True) == "suspended"
    worker.stop()
    assert find_state(worker, is_waited_for=True) == "draining"


def test_worker_that_has_no_token_yet_is_refreshing(harness: WorkerHarness):
    assert find_state(harness.worker, is_waited_for=True) == "refreshing"


def test_idle_worker_is_lost_capacity_while_a_request_waits(
    redis: Redis, harness: WorkerHarness, census: Census, counters: Counters
):
    harness.wait_until_idle()
    census.take(harness.workers)
    # RQ's queue of another pool's requests does not count.
    redis.rpush("rq:queue:chat:other", "req_2")
    census.take(harness.workers)
    assert (counters.value("account_seconds", "default", "idle_waiting"), last_letters(redis)) == (0, "i")
    redis.rpush("rq:queue:batch:default", "req_1")
    census.take(harness.workers)
    assert last_letters(redis) == "w"
    assert counters.value("account_seconds", "default", "idle_waiting") > 0


def write_column(redis: Redis, second: int, letters: str, ids: str = "", process: str = "p1") -> None:
    fields = {"c": letters, **({"k": ids} if ids else {})}
    redis.xadd(keys.tape(process), fields, id=f"{second}500-0")


def test_columns_become_a_row_for_each_credential(redis: Redis):
    redis.zadd(keys.TAPES, {"p1": 1})
    write_column(redis, 1000, "bi", "a b")
    write_column(redis, 1001, "bb")
    # One second is missing, because the process was late; then it holds other credentials, and then it is away.
    write_column(redis, 1003, "ic", "b c")
    write_column(redis, 1010, "bb")
    tape = read_tape(redis, seconds=11, until=1011.9)
    assert (tape.begins_at, tape.seconds) == (1000, 11)
    assert tape.letters == {"a": "bb---------", "b": "ibii------b", "c": "--cc------b"}


def test_account_goes_from_one_process_to_another(redis: Redis):
    redis.zadd(keys.TAPES, {"p1": 1, "p2": 1})
    write_column(redis, 1000, "bi", "a b")
    write_column(redis, 1001, "ib", "b a", process="p2")
    # Of a column that is too short the others had no worker.
    write_column(redis, 1002, "c", process="p2")
    tape = read_tape(redis, seconds=3, until=1003.0)
    assert tape.letters == {"a": "bb-", "b": "iic"}


def test_row_begins_in_the_middle_of_what_is_kept(redis: Redis):
    redis.zadd(keys.TAPES, {"p1": 1})
    write_column(redis, 1000, "b", "a")
    for second in range(1001, 1005):
        write_column(redis, second, "i")
    assert read_tape(redis, seconds=2, until=1005.0).letters == {"a": "ii"}


def test_tape_is_bounded_and_names_its_credentials_now_and_then(redis: Redis):
    writer = TapeWriter("p1")
    for _ in range(200):
        with redis.pipeline() as pipe:
            writer.append(pipe, {"a": "b", "b": "i"})
            pipe.execute()
    columns = redis.xrange(keys.tape("p1"))
    assert len(columns) < TAPE_SECONDS + 30
    assert any(b"k" in fields for _, fields in columns[:15])
    assert 0 < redis.ttl(keys.tape("p1")) <= TAPE_TTL_SECONDS


def test_tape_of_a_killed_process_is_read_until_its_seconds_are_over(redis: Redis):
    for process in ("killed", "successor"):
        with redis.pipeline() as pipe:
            TapeWriter(process).append(pipe, {process: "b"})
            pipe.execute()
    Membership(redis, "successor", Settings()).remove("killed")
    eventually(lambda: set(read_tape(redis, seconds=10).letters) == {"killed", "successor"})
    redis.zadd(keys.TAPES, {"killed": clock.now() - TAPE_TTL_SECONDS - 1})
    with redis.pipeline() as pipe:
        TapeWriter("successor").append(pipe, {"successor": "b"})
        pipe.execute()
    assert redis.zrange(keys.TAPES, 0, -1) == [b"successor"]


def test_letters_are_unambiguous():
    assert len({*LETTERS.values(), ABSENT}) == len(LETTERS) + 1
