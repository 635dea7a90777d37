"""The record of a batch tells how it gets on, whichever front runs it."""

from typing import Any

import pytest
from redis import Redis

from shared import clock, keys
from shared.batches.batch import Batch
from shared.batches.batch_leases import BatchLeases
from shared.batches.batch_store import Batches
from tests.builders import stand_in_input
from web.batches.progress.progress_log import ProgressLog
from web.batches.transitions import Transitions

BEGAN_AT = 1_000_000


class Run:
    """A batch that fronts look at, at times that the test sets."""

    def __init__(self, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self.redis, self.store, self._patch = redis, Batches(redis), monkeypatch
        fields: dict[str, Any] = {"status": "in_progress", "in_progress_at": BEGAN_AT, "total": 99}
        with stand_in_input(redis, "f1"):
            self.store.add(Batch("b", "k", "/v1/completions", "f1", "f2", "f3", 1, "24h", 2, **fields))

    def take(self, front: str) -> ProgressLog:
        self.redis.delete(keys.batch_lease("b"))
        assert BatchLeases(self.redis).hold("b", front)
        return ProgressLog(Transitions(self.store, front))

    def look(self, log: ProgressLog, second: int, done: int, hindrance: str = "") -> float:
        self._patch.setattr(clock, "now", lambda: float(BEGAN_AT + second))
        self.redis.hset(keys.batch("b"), "completed", done)
        seconds = log.look(self.store.get("b"))
        log.note(self.store.get("b"), hindrance)
        return seconds

    def list_samples(self) -> list[tuple[int, int]]:
        return [(at - BEGAN_AT, done) for at, done in self.store.get("b").samples]


@pytest.fixture
def run(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(redis, monkeypatch)


def test_samples_are_those_of_the_last_change_and_a_successor_goes_on_with_them(run: Run):
    first = run.take("f1")
    assert [run.look(first, 3, 1), run.look(first, 7, 1), run.look(first, 9, 1)] == [0, 4, 6]
    assert run.list_samples() == []
    run.look(first, 10, 1)
    run.look(first, 12, 2)
    assert run.list_samples() == [(0, 0), (3, 1)]
    second = run.take("f2")
    assert run.look(second, 30, 2) == 17, "a request ended after the first front's last sample, but not long after it"
    run.look(first, 45, 4)
    assert run.list_samples() == [(0, 0), (3, 1), (13, 2)], "the first one has lost its lease"
    run.look(second, 50, 5)
    assert run.list_samples()[-1] == (50, 5)
    assert run.look(run.take("f3"), 300, 5) == 250


def test_hindrance_is_noted_at_once_and_its_end_begins_a_new_pace(run: Run):
    log = run.take("f1")
    run.look(log, 1, 0)
    run.look(log, 20, 5)
    run.look(log, 21, 5, "key_disabled")
    assert (run.list_samples(), run.store.get("b").hindrance) == ([(0, 0), (20, 5)], "key_disabled")
    run.look(log, 200, 5)
    assert (run.list_samples(), run.store.get("b").hindrance) == ([(20, 5), (200, 5)], "")


def test_nothing_is_written_while_nothing_changes(run: Run):
    log = run.take("f1")
    run.look(log, 20, 5, "no_account")
    run.redis.config_resetstat()
    for second in range(30, 600, 30):
        run.look(log, second, 5, "no_account")
    assert "cmdstat_evalsha" not in run.redis.info("commandstats")
