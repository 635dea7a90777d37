"""What a worker process does to all of its workers."""

import math
import time
from types import SimpleNamespace
from typing import Any

from redis import Redis

from workers.crew import BEAT_ROUNDS, Crew


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
