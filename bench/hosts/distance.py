"""How much of the accounts' time is used while Redis is on another host, and how long the farm takes to start there."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
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

#: Start of a load that is left out of the utilisation, in seconds: a farm learns within four how far Redis is.
WARM_UP_SECONDS = 5.0
#: Round trip in milliseconds to the Redis with which the farm is started.
START_ROUND_TRIP_MS = 20.0


class Case(NamedTuple):
    """A number of accounts, the seconds of a response, a distance, and the least utilisation."""

    accounts: int
    seconds: float
    round_trip_ms: float
    bound: float | None = None

    def __str__(self) -> str:
        away = f"{self.round_trip_ms:g} ms away" if self.round_trip_ms else "no delay"
        return f"{self.accounts} accounts, {self.seconds:g} s, {away}"


#: Each job costs its account one round trip, so 1, 5 and 20 ms leave at most 0.999, 0.995 and 0.98 of the time to
#: responses of 1 s, and 5 ms leave 0.976 to those of 0.2 s. With 30 accounts two slow cores have time left for those.
CASES = (
    Case(100, 1.0, 0),
    Case(100, 1.0, 1, 0.985),
    Case(100, 1.0, 5, 0.98),
    Case(100, 1.0, 20, 0.95),
    Case(100, 0.2, 0),
    Case(100, 0.2, 5, 0.93),
    Case(30, 0.2, 0),
    Case(30, 0.2, 5, 0.93),
)


@dataclass
class DistantRedis:
    """A Redis on a host of its own."""

    url: str
    _network: Network
    _client: Redis

    def move(self, round_trip_ms: float) -> None:
        """Sets the round trip between it and this host, for packets that are sent from now on."""
        self._network.set_link(HERE, STORE, delay=round_trip_ms / 2000)

    def clear(self) -> None:
        """Forgets the farm before, whose processes have ended."""
        self._client.flushall()


def measure_distances(seconds: float) -> list[Measurement]:
    """100 accounts with Redis 1, 5 and 20 ms away (round trip; as root): utilisation, and the start."""
    measurements = []
    with run_distant_redis() as redis:
        for accounts, cases in groupby(CASES, key=lambda case: case.accounts):
            redis.clear()
            measurements += measure_accounts(redis, accounts, list(cases), seconds)
    return measurements


def measure_accounts(redis: DistantRedis, accounts: int, cases: Sequence[Case], seconds: float) -> list[Measurement]:
    """Starts a farm with the Redis at its greatest distance, then measures the cases."""
    with run_simulator(accounts) as upstream:
        redis.move(START_ROUND_TRIP_MS)
        with run_farm_on(upstream, REDIS_URL=redis.url) as farm:
            start = f"{accounts} accounts, {START_ROUND_TRIP_MS:g} ms away: seconds to ready"
            measurements = [unbounded("distance", start, round(farm.start_seconds, 1))]
            for case in cases:
                redis.move(case.round_trip_ms)
                measurements += measure_case(farm, case, WARM_UP_SECONDS + seconds)
            counts = {
                "collisions at the upstream": farm.upstream.read_counters()["collisions"],
                "leases lost": int(farm.read_metric("farm_leases_lost")),
            }
    return measurements + [exactly("distance", f"{accounts} accounts: {name}", n) for name, n in counts.items()]


def measure_case(farm: MeasuredFarm, case: Case, seconds: float) -> list[Measurement]:
    """Twice as many clients as accounts, so that a request waits for each."""
    farm.upstream.control("pace", {"delay": case.seconds})
    result = asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, 2 * case.accounts, seconds)))
    utilisation = measure_utilisation(result, case)
    name = f"{case}: utilisation"
    return [
        unbounded("distance", name, round(utilisation, 4))
        if case.bound is None
        else at_least("distance", name, utilisation, case.bound),
        exactly("distance", f"{case}: errors {dict(result.errors) or ''}".strip(), sum(result.errors.values())),
    ]


def measure_utilisation(result: LoadResult, case: Case) -> float:
    busy = result.busy_seconds(case.seconds, WARM_UP_SECONDS)
    return busy / (result.seconds - WARM_UP_SECONDS) / case.accounts


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
        yield DistantRedis(f"redis://{network.address(STORE)}:{REDIS_PORT}/0", network, redis)
