"""What a request may cost Redis, counted and not timed: commands, and reads, which are the round trips and messages.

Redis counts how often it reads from a connection. What the farm does by time is measured while it rests, and taken off.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import requests
from redis import Redis

from tests.system.farm import KEY, Farm, chat_body
from tests.waiting import eventually

#: Seconds in which it is seen what a farm at rest does.
REST = 3.0


@dataclass
class Cost:
    """What Redis has done, less what it does for a farm at rest."""

    commands: float
    reads: float
    calls: dict[str, float]

    def per(self, units: int) -> "Cost":
        return Cost(
            self.commands / units, self.reads / units, {name: count / units for name, count in self.calls.items()}
        )


def look(redis: Redis) -> Cost:
    calls = {name.removeprefix("cmdstat_"): one["calls"] for name, one in redis.info("commandstats").items()}
    return Cost(sum(calls.values()), redis.info("stats")["total_reads_processed"], calls)


def cost(farm: Farm, work: Callable[[], None]) -> Cost:
    """What the work cost."""
    redis = Redis.from_url(farm.redis_url())
    first = look(redis)
    time.sleep(REST)
    second = look(redis)
    began = time.monotonic()
    work()
    # Positions that were said a moment later belong to it too.
    time.sleep(0.6)
    rests = (time.monotonic() - began) / REST
    third = look(redis)

    def gained(a: float, b: float, c: float) -> float:
        return c - b - rests * (b - a)

    calls = {n: gained(first.calls.get(n, 0), second.calls.get(n, 0), count) for n, count in third.calls.items()}
    return Cost(
        gained(first.commands, second.commands, third.commands), gained(first.reads, second.reads, third.reads), calls
    )


def clients(farm: Farm, count: int, requests_each: int, **fields: object) -> None:
    """So many clients at once, each with a connection and so many requests one after the other."""

    def ask() -> None:
        with requests.Session() as session:
            for _ in range(requests_each):
                answer = session.post(
                    farm.url + "/v1/chat/completions",
                    json=chat_body("Hello " * 40, **fields),
                    headers={"authorization": f"Bearer {KEY}"},
                    timeout=30,
                )
                assert answer.status_code == 200

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_request_that_finds_an_idle_worker(farm: Farm):
    clients(farm, 2, 10)
    spent = cost(farm, lambda: clients(farm, 1, 200)).per(200)
    # Front: enqueue. Worker: BLMOVE, begin, end. And its frames.
    assert spent.reads < 5.3, spent
    assert spent.calls["evalsha"] < 3.2, spent
    assert spent.calls["publish"] < 1.2, spent
    assert spent.commands < 72, spent


def test_a_request_that_had_to_wait(farm: Farm):
    clients(farm, 2, 10)
    # Slow enough that a busy machine, too, has the next request waiting before an answer ends.
    farm.upstream.pace(delay=0.15)
    spent = cost(farm, lambda: clients(farm, 24, 10)).per(240)
    # Front: enqueue. Worker: the end of one is the beginning of the next. And its frames.
    assert spent.reads < 3.1, spent
    assert spent.calls["evalsha"] < 2.3, spent
    assert spent.calls["blmove"] < 0.2, spent
    assert spent.commands < 62, spent


@pytest.mark.parametrize("streams", [1, 8])
def test_a_chunk(farm: Farm, streams: int):
    clients(farm, 2, 10)
    farm.upstream.pace(chunks=200, chunk_delay=0.004)
    spent = cost(farm, lambda: clients(farm, streams, 1, stream=True)).per(200 * streams)
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    assert spent.calls["publish"] < 1.1, spent
    assert spent.reads < (1.1 if streams == 1 else 0.5), spent
