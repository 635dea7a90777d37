"""What a worker process does to all of its workers."""

import math
import time
from types import SimpleNamespace
from typing import Any

from redis import Redis

from workers.process.worker_set import BEAT_ROUNDS, Crew


class Beating:
    """A worker as far as its signs of life go."""

    def __init__(self) -> None:
        self.beat_at = time.monotonic()
        self.beats = 0

    def beat(self, pipe: Any) -> None:
        self.beat_at = time.monotonic()
        self.beats += 1


def test_signs_of_life_are_spread_and_nobody_is_left_out(redis: Redis):
    crew = Crew(SimpleNamespace(redis=redis), None, None, None, {})  # type: ignore[arg-type]
    workers = {str(i): Beating() for i in range(45)}
    crew._workers.update(workers)  # type: ignore[arg-type]
    for turn in range(1, BEAT_ROUNDS + 1):
        crew.beat_oldest()
        assert sum(one.beats for one in workers.values()) <= turn * math.ceil(45 / BEAT_ROUNDS)
    assert min(one.beats for one in workers.values()) >= 1
    assert max(one.beats for one in workers.values()) <= 2
    crew.beat()
    assert min(one.beats for one in workers.values()) >= 2


class Idle:
    """A worker that serves nothing; comparing it with others would be a mistake, for a thousand are a million pairs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lease = SimpleNamespace(pool="default", credential_id=name, lost=False)
        self.serving = SimpleNamespace(busy_since=0.0)
        self.stopping = False

    def stop(self) -> None:
        self.stopping = True

    def __eq__(self, other: object) -> bool:
        raise AssertionError("workers are compared")

    __hash__ = None  # type: ignore[assignment]


def test_who_is_above_the_share_or_not_usable_stops_and_no_worker_is_compared_with_another():
    census: Any = SimpleNamespace(usable_in=lambda _: ["a", "b", "c", "d"], share=lambda _: 2)
    crew = Crew(SimpleNamespace(), None, census, None, {})  # type: ignore[arg-type]
    workers = {name: Idle(name) for name in "abcdx"}
    workers["a"].serving.busy_since = 1.0
    workers["d"].lease.lost = True
    crew._workers.update(workers)  # type: ignore[arg-type]
    crew._stop_surplus("default")
    assert [name for name, one in workers.items() if one.stopping] == ["b", "d", "x"]
