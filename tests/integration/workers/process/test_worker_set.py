"""What a worker process does to all of its workers."""

import math
import time
from types import SimpleNamespace
from typing import Any

from redis import Redis

from workers.process.worker_set import HEARTBEAT_ROUNDS, WorkerSet


class Beating:
    """A worker as far as its signs of life go."""

    def __init__(self) -> None:
        self.heartbeat_at = time.monotonic()
        self.beats = 0

    def heartbeat_into(self, pipe: Any) -> None:
        self.heartbeat_at = time.monotonic()
        self.beats += 1


def test_signs_of_life_are_spread_and_nobody_is_left_out(redis: Redis):
    worker_set = WorkerSet(SimpleNamespace(redis=redis), None, None, None, {})  # type: ignore[arg-type]
    workers = {str(i): Beating() for i in range(45)}
    worker_set._workers.update(workers)  # type: ignore[arg-type]
    for turn in range(1, HEARTBEAT_ROUNDS + 1):
        worker_set.heartbeat_oldest()
        assert sum(one.beats for one in workers.values()) <= turn * math.ceil(45 / HEARTBEAT_ROUNDS)
    assert min(one.beats for one in workers.values()) >= 1
    assert max(one.beats for one in workers.values()) <= 2
    worker_set.heartbeat()
    assert min(one.beats for one in workers.values()) >= 2


class Idle:
    """A worker that serves nothing; comparing it with others would be a mistake, for a thousand are a million pairs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lease = SimpleNamespace(pool="default", credential_id=name, lost=False)
        self.runner = SimpleNamespace(busy_since=0.0)
        self.is_stopping = False

    def stop(self) -> None:
        self.is_stopping = True

    def __eq__(self, other: object) -> bool:
        raise AssertionError("workers are compared")

    __hash__ = None  # type: ignore[assignment]


def test_who_is_above_the_share_or_not_usable_stops_and_no_worker_is_compared_with_another():
    membership: Any = SimpleNamespace(
        usable_credentials_in_group=lambda _: ["a", "b", "c", "d"], fair_share=lambda _: 2
    )
    worker_set = WorkerSet(SimpleNamespace(), None, membership, None, {})  # type: ignore[arg-type]
    workers = {name: Idle(name) for name in "abcdx"}
    workers["a"].runner.busy_since = 1.0
    workers["d"].lease.lost = True
    worker_set._workers.update(workers)  # type: ignore[arg-type]
    worker_set._stop_surplus("default")
    assert [name for name, one in workers.items() if one.is_stopping] == ["b", "d", "x"]
