"""How many cores and how much memory a farm needs, by accounts and response time."""

import asyncio
import time
from itertools import groupby
from typing import NamedTuple

from bench.farm import API_KEY, MeasuredFarm, run_farm
from bench.load import Load, run_load
from bench.measurement import Measurement, exactly, unbounded
from bench.outcome import LoadResult

#: Start of a load that is left out of the utilisation, in seconds.
WARM_UP_SECONDS = 2.0
#: Text events of a streamed response, as a translated paragraph has.
PIECES = 20


class Size(NamedTuple):
    """Accounts that are all busy with responses of `seconds`, streamed or whole."""

    accounts: int
    seconds: float
    is_streamed: bool

    def __str__(self) -> str:
        return f"{self.accounts} accounts, {self.seconds:g} s, {'streamed' if self.is_streamed else 'whole'}"


SIZES = (Size(20, 1, True), Size(100, 1, True), Size(100, 1, False), Size(100, 5, True), Size(1000, 5, True))


def measure_sizes(seconds: float) -> list[Measurement]:
    """Cores and memory of a farm whose accounts are all busy, by accounts and response time."""
    measurements = []
    for accounts, sizes in groupby(SIZES, key=lambda size: size.accounts):
        with run_farm(accounts) as farm:
            for size in sizes:
                measurements += measure_size(farm, size, seconds)
    return measurements


def measure_size(farm: MeasuredFarm, size: Size, seconds: float) -> list[Measurement]:
    """As many clients as accounts, and a tenth more, so that no account waits for the next request."""
    pace = {"chunks": PIECES, "chunk_delay": size.seconds / PIECES} if size.is_streamed else {"delay": size.seconds}
    farm.upstream.control("pace", pace)
    clients = size.accounts + max(2, size.accounts // 10)
    load = Load("127.0.0.1", farm.port, API_KEY, clients, max(seconds, 3 * size.seconds), stream=size.is_streamed)
    before, started = farm.measure_cpu_seconds(), time.monotonic()
    result = asyncio.run(run_load(load))
    elapsed = time.monotonic() - started
    used = {kind: total - before.get(kind, 0.0) for kind, total in farm.measure_cpu_seconds().items()}
    return [
        *describe_cost(size, result, sum(used.values()), elapsed),
        unbounded("sizing", f"{size}: MB PSS", round(sum(farm.measure_memory().values()))),
        exactly("sizing", f"{size}: errors at clients", sum(result.errors.values())),
    ]


def describe_cost(size: Size, result: LoadResult, cpu_seconds: float, elapsed: float) -> list[Measurement]:
    busy = result.busy_seconds(size.seconds, WARM_UP_SECONDS)
    utilisation = busy / (result.seconds - WARM_UP_SECONDS) / size.accounts
    return [
        unbounded("sizing", f"{size}: utilisation", round(utilisation, 3)),
        unbounded("sizing", f"{size}: cores in use", round(cpu_seconds / elapsed, 2)),
        unbounded("sizing", f"{size}: CPU ms per request", round(1000 * cpu_seconds / max(1, result.completed), 2)),
    ]
