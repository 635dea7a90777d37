"""How much of the accounts' time is used while Redis is on another host, and how long the farm takes to start there."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from redis import Redis

from bench.farm import API_KEY, MeasuredFarm, run_farm_on
from bench.hosts.farm import REDIS_PORT, STORE, Starter, is_up, list_redis_arguments, wait_for
from bench.hosts.network import HERE, Network, run_network
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, exactly, unbounded
from bench.outcome import LoadResult
from bench.simulator import run_simulator
from launcher.processes import redis_server

ACCOUNTS = 100
#: Start of a load that is left out of the utilisation, in seconds: a farm learns within four how far Redis is.
WARM_UP_SECONDS = 5.0
#: Round trip in milliseconds to the Redis with which the farm is started.
START_ROUND_TRIP_MS = 20.0


class Case(NamedTuple):
    """A distance, the seconds of a response, and the least utilisation."""

    round_trip_ms: float
    seconds: float
    bound: float | None = None

    def __str__(self) -> str:
        away = f"{self.round_trip_ms:g} ms away" if self.round_trip_ms else "no delay"
        return f"{away}, responses of {self.seconds:g} s"


#: Each job costs its account one round trip, so 1, 5 and 20 ms leave at most 0.999, 0.995 and 0.98 of the time to
#: responses of 1 s, and 5 ms leave 0.976 to those of 0.2 s.
CASES = (
    Case(0, 1.0),
    Case(1, 1.0, 0.985),
    Case(5, 1.0, 0.98),
    Case(20, 1.0, 0.95),
    Case(0, 0.2),
    Case(5, 0.2, 0.93),
)


@dataclass
class DistantRedis:
    """A Redis on a host of its own."""

    url: str
    _network: Network

    def move(self, round_trip_ms: float) -> None:
        """Sets the round trip between it and this host, for packets that are sent from now on."""
        self._network.set_link(HERE, STORE, delay=round_trip_ms / 2000)


def measure_distances(seconds: float) -> list[Measurement]:
    """100 accounts with Redis 1, 5 and 20 ms away (round trip; as root): utilisation, and the start."""
    with run_distant_redis() as redis, run_simulator(ACCOUNTS) as upstream:
        redis.move(START_ROUND_TRIP_MS)
        with run_farm_on(upstream, REDIS_URL=redis.url) as farm:
            measurements = [
                unbounded(
                    "distance", f"seconds to ready, {START_ROUND_TRIP_MS:g} ms away", round(farm.start_seconds, 1)
                )
            ]
            for case in CASES:
                redis.move(case.round_trip_ms)
                measurements += measure_case(farm, case, WARM_UP_SECONDS + seconds)
            collisions = farm.upstream.read_counters()["collisions"]
            leases_lost = int(farm.read_metric("farm_leases_lost"))
    measurements.append(exactly("distance", "collisions at the upstream", collisions))
    measurements.append(exactly("distance", "leases lost", leases_lost))
    return measurements


def measure_case(farm: MeasuredFarm, case: Case, seconds: float) -> list[Measurement]:
    """Twice as many clients as accounts, so that a request waits for each."""
    farm.upstream.control("pace", {"delay": case.seconds})
    result = asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, 2 * ACCOUNTS, seconds)))
    utilisation = measure_utilisation(result, case.seconds)
    name = f"{case}: utilisation"
    return [
        unbounded("distance", name, round(utilisation, 4))
        if case.bound is None
        else at_least("distance", name, utilisation, case.bound),
        exactly("distance", f"{case}: errors {dict(result.errors) or ''}".strip(), sum(result.errors.values())),
    ]


def measure_utilisation(result: LoadResult, service: float) -> float:
    busy = result.busy_seconds(service, WARM_UP_SECONDS)
    return busy / (result.seconds - WARM_UP_SECONDS) / ACCOUNTS


@contextmanager
def run_distant_redis() -> Iterator[DistantRedis]:
    """Runs a Redis in a network namespace of its own, at first without delay."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="farm-bench-")))
        network = stack.enter_context(run_network(STORE))
        starter = Starter(stack, network, folder)
        starter.start(STORE, redis_server.find_programs()[0], *list_redis_arguments(folder))
        redis = Redis(host=network.address(STORE), port=REDIS_PORT, socket_timeout=5)
        wait_for(lambda: is_up(redis), starter)
        yield DistantRedis(f"redis://{network.address(STORE)}:{REDIS_PORT}/0", network)
