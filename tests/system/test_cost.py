"""What a request costs Redis, counted and not timed: commands, and reads from connections (round trips and messages).

What an idle farm does in the same time is measured first and subtracted.
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

#: Seconds for which the idle farm is measured.
IDLE_SECONDS = 3.0


@dataclass
class Cost:
    """What Redis has done."""

    commands: float
    reads: float
    calls: dict[str, float]

    def per(self, units: int) -> "Cost":
        return Cost(
            self.commands / units, self.reads / units, {name: count / units for name, count in self.calls.items()}
        )


def read_cost(redis: Redis) -> Cost:
    calls = {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in redis.info("commandstats").items()}
    return Cost(sum(calls.values()), redis.info("stats")["total_reads_processed"], calls)


def measure(farm: Farm, work: Callable[[], None]) -> Cost:
    """The cost of `work`, without that of an idle farm in the same time."""
    redis = Redis.from_url(farm.redis_url())
    start = read_cost(redis)
    time.sleep(IDLE_SECONDS)
    before = read_cost(redis)
    started_at = time.monotonic()
    work()
    # Acknowledgements that are sent a moment later belong to it too.
    time.sleep(0.6)
    idle_periods = (time.monotonic() - started_at) / IDLE_SECONDS
    after = read_cost(redis)

    def net(start: float, before: float, after: float) -> float:
        return after - before - idle_periods * (before - start)

    calls = {
        name: net(start.calls.get(name, 0), before.calls.get(name, 0), count) for name, count in after.calls.items()
    }
    return Cost(
        net(start.commands, before.commands, after.commands), net(start.reads, before.reads, after.reads), calls
    )


def send_requests(farm: Farm, clients: int, requests_each: int, **fields: object) -> None:
    """Concurrent clients, each with one connection and its requests one after the other."""

    def send() -> None:
        with requests.Session() as session:
            for _ in range(requests_each):
                response = session.post(
                    farm.url + "/v1/chat/completions",
                    json=chat_body("Hello " * 40, **fields),
                    headers={"authorization": f"Bearer {KEY}"},
                    timeout=120,
                )
                assert response.status_code == 200

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_request_to_an_idle_worker_has_a_bounded_cost(farm: Farm):
    send_requests(farm, 2, 10)
    cost = measure(farm, lambda: send_requests(farm, 1, 200)).per(200)
    # The front enqueues; the worker pops, starts and finishes the job, and publishes its frames.
    assert cost.reads < 5.3, cost
    assert cost.calls["evalsha"] < 3.2, cost
    assert cost.calls["publish"] < 1.2, cost
    assert cost.commands < 72, cost


def queue_requests(farm: Farm, count: int) -> None:
    """Sends them all at once, and responds fast once all have arrived, so that no worker ever waits for a job."""
    served = farm.upstream.counters()["served"]
    farm.upstream.pace(delay=5)
    sending = threading.Thread(target=send_requests, args=(farm, count, 1))
    sending.start()

    def arrived() -> int:
        upstream = farm.upstream.counters()
        waiting = farm.live_pool()["queue_depth"]["interactive"]
        return int(waiting + upstream["in_flight"] + upstream["served"] - served)

    while arrived() < count:
        time.sleep(0.5)
    farm.upstream.pace()
    sending.join()


def test_request_that_waited_has_a_bounded_cost(farm: Farm):
    send_requests(farm, 2, 10)
    cost = measure(farm, lambda: queue_requests(farm, 240)).per(240)
    # The front enqueues; the worker finishes one job and starts the next in one step, and publishes its frames.
    assert cost.reads < 3.1, cost
    assert cost.calls["evalsha"] < 2.3, cost
    assert cost.calls["blmove"] < 0.2, cost
    assert cost.commands < 62, cost


@pytest.mark.parametrize("streams", [1, 8])
def test_chunk_has_a_bounded_cost(farm: Farm, streams: int):
    send_requests(farm, 2, 10)
    farm.upstream.pace(chunks=200, chunk_delay=0.004)
    cost = measure(farm, lambda: send_requests(farm, streams, 1, stream=True)).per(200 * streams)
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    assert cost.calls["publish"] < 1.1, cost
    assert cost.reads < (1.1 if streams == 1 else 0.5), cost
