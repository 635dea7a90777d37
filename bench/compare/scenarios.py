"""The scenarios: each yields the samples of one run on one system."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import mean

from bench.compare.figures import Sample
from bench.compare.system import LoadMeasurement, RunningSystem, System, measure_load
from bench.processes import sum_memory
from bench.simulator import run_simulator

#: Text events per stream, and seconds between two of them.
CHUNKS, CHUNK_DELAY = 100, 0.02
STREAM_SECONDS = CHUNKS * CHUNK_DELAY
#: How often a queue turns over while its cost is measured, at a thousand responses per second.
QUEUE_TURNOVERS = 3


@dataclass(frozen=True)
class CompareScale:
    """How much is measured."""

    #: Accounts, and the seconds that a response takes.
    grid: tuple[tuple[int, float], ...] = ((8, 0.2), (8, 1), (8, 5), (100, 0.2), (100, 1), (100, 5), (1000, 5))
    #: Clients of `overhead`.
    clients: tuple[int, ...] = (1, 50, 200)
    #: Concurrent streams.
    streams: tuple[int, ...] = (50, 100, 200)
    credentials: tuple[int, ...] = (10, 100, 1000)
    #: Requests in the queue.
    depths: tuple[int, ...] = (0, 1000, 10_000)
    #: Length of a load, without the warm-up.
    seconds: float = 8.0


#: Checks within seconds that every scenario works.
SMOKE = CompareScale(grid=((4, 0.2),), clients=(1, 4), streams=(4,), credentials=(4,), depths=(20,), seconds=1.0)


def measure_utilisation(system: System, scale: CompareScale) -> Iterator[Sample]:
    """One request per account and two clients per account: how much of the accounts' time is used."""
    for accounts, service in scale.grid:
        if accounts > system.max_accounts:
            continue
        case = f"{accounts} accounts, {service:g} s"
        warm_up = 2.0 + 2 * service
        seconds = warm_up + max(scale.seconds, 2 * service)
        memory: dict[str, float] = {}

        with run_simulator(accounts, "--delay", str(service)) as upstream, system.start(upstream) as running:
            measure_load(running, accounts, 1.0, 0.5)
            at_end = partial(record_memory, running, memory)
            load = measure_load(running, 2 * accounts, seconds, warm_up, at_end=at_end)
            share = load.result.busy_seconds(service, warm_up) / (seconds - warm_up) / accounts
            yield Sample("utilisation", case, system.name, "share of the ideal", share)
            yield from count_failures("utilisation", case, system, running, load)
            yield Sample("utilisation", case, system.name, "MB PSS under load", sum(memory.values()))


def record_memory(running: RunningSystem, memory: dict[str, float]) -> None:
    """Records the memory in MB by kind of process."""
    memory.update(sum_memory(running.list_processes()))


def measure_overhead(system: System, scale: CompareScale) -> Iterator[Sample]:
    """No upstream delay: requests/s, CPU time per request, latency."""
    with run_simulator(100) as upstream, system.start(upstream) as running:
        measure_load(running, 50, 2.0, 0.5)
        for clients in scale.clients:
            case = f"{clients} client{'s' if clients > 1 else ''}"
            load = measure_load(running, clients, 1.0 + scale.seconds, 1.0)
            yield Sample("overhead", case, system.name, "requests/s", load.completed / scale.seconds)
            yield from count_failures("overhead", case, system, running, load)
            for kind, seconds in load.cpu_per(load.completed).items():
                yield Sample("overhead", case, system.name, f"CPU ms per request: {kind}", 1000 * seconds)
            for share in (0.5, 0.99):
                latency = 1000 * load.result.percentile(share)
                yield Sample("overhead", case, system.name, f"latency p{100 * share:g}, ms", latency)


def measure_streaming(system: System, scale: CompareScale) -> Iterator[Sample]:
    """Streams of 100 chunks, 20 ms apart, one per account, and as many clients."""
    for streams in scale.streams:
        case = f"{streams} streams"
        pace = ("--chunks", str(CHUNKS), "--chunk-delay", str(CHUNK_DELAY))
        warm_up = STREAM_SECONDS
        seconds = warm_up + max(scale.seconds, STREAM_SECONDS)
        with run_simulator(streams, *pace) as upstream, system.start(upstream) as running:
            measure_load(running, streams, 1.0, 0.5, stream=True)
            load = measure_load(running, streams, seconds, warm_up, stream=True)
            busy = load.result.busy_seconds(STREAM_SECONDS, warm_up)
            share = busy / (seconds - warm_up) / streams
            yield Sample("streaming", case, system.name, "share of the ideal rate", share)
            yield from count_failures("streaming", case, system, running, load)
            for kind, cpu in load.cpu_per(busy / CHUNK_DELAY).items():
                yield Sample("streaming", case, system.name, f"CPU us per chunk: {kind}", 1e6 * cpu)
            gap = load.result.percentile(0.99, load.result.gaps) - CHUNK_DELAY
            yield Sample("streaming", case, system.name, "added gap p99, ms", 1000 * gap)
            first_byte = load.result.percentile(0.5, load.result.first_bytes)
            yield Sample("streaming", case, system.name, "first byte p50, ms", 1000 * first_byte)


def measure_growth(system: System, scale: CompareScale) -> Iterator[Sample]:
    """Cost of a request, and memory, with many credentials, and with many queued requests.

    Each series goes from the smallest case to the largest and back, because the machine's speed may drift meanwhile.
    """
    costs: defaultdict[str, list[float]] = defaultdict(list)
    for credentials in there_and_back(scale.credentials):
        with run_simulator(credentials) as upstream, system.start(upstream) as running:
            # The same number of clients in each case, so that no request is queued in any.
            load = measure_load(running, min(scale.credentials), 2.0 + 2 * scale.seconds, 2.0)
            yield from record_costs(f"{credentials} credentials", system, running, load, costs)
    for depth in there_and_back(scale.depths):
        with run_simulator(50) as upstream, system.start(upstream) as running:
            # The farm serves more than 500 requests per second: the queue turns over at least once in the warm-up.
            warm_up = 2.0 + depth / 500
            # Clients whose requests arrive together get their responses together and send their next requests
            # together. Only a measurement over several turnovers of the queue shows the cost of a request.
            seconds = max(2 * scale.seconds, QUEUE_TURNOVERS * depth / 1000)
            load = measure_load(running, 50 + depth, warm_up + seconds, warm_up)
            yield from record_costs(f"depth {depth}", system, running, load, costs)
    (few, many), (empty, full) = first_and_last(scale.credentials), first_and_last(scale.depths)
    ratios = {
        f"{many} over {few} credentials": mean(costs[f"{many} credentials"]) / mean(costs[f"{few} credentials"]),
        f"depth {full} over {empty}": mean(costs[f"depth {full}"]) / mean(costs[f"depth {empty}"]),
    }
    for case, ratio in ratios.items():
        yield Sample("growth", case, system.name, "cost per request", ratio)


def there_and_back(values: tuple[int, ...]) -> tuple[int, ...]:
    """(1, 2, 3) -> (1, 2, 3, 2, 1)."""
    return (*values, *reversed(values[:-1]))


def first_and_last(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[-1]


def record_costs(
    case: str, system: System, running: RunningSystem, load: LoadMeasurement, costs: dict[str, list[float]]
) -> Iterator[Sample]:
    """CPU milliseconds per request, also appended to `costs`; memory and errors."""
    costs[case].append(1000 * load.cpu_per(load.completed)["all"])
    yield Sample("growth", case, system.name, "CPU ms per request", costs[case][-1])
    yield Sample("growth", case, system.name, "MB PSS", sum(sum_memory(running.list_processes()).values()))
    yield Sample("growth", case, system.name, "errors at clients", load.errors)


def measure_start(system: System, scale: CompareScale) -> Iterator[Sample]:
    """From the command to ready, with 100 accounts; memory when idle and after a load."""
    with run_simulator(100) as upstream, system.start(upstream) as running:
        yield Sample("start", "warm", system.name, "seconds to ready", running.start_seconds)
        idle = sum(sum_memory(running.list_processes()).values())
        yield Sample("start", "warm", system.name, "MB PSS idle", idle)
        measure_load(running, 50, 1.0 + scale.seconds, 1.0)
        loaded = sum(sum_memory(running.list_processes()).values())
        yield Sample("start", "warm", system.name, "MB PSS after a load", loaded)


def count_failures(
    scenario: str, case: str, system: System, running: RunningSystem, load: LoadMeasurement
) -> Iterator[Sample]:
    """Collisions on an account at the upstream, and responses that were not correct."""
    yield Sample(scenario, case, system.name, "collisions", running.upstream.read_counters()["collisions"])
    yield Sample(scenario, case, system.name, "errors at clients", load.errors)


SCENARIOS = {
    "utilisation": measure_utilisation,
    "overhead": measure_overhead,
    "streaming": measure_streaming,
    "growth": measure_growth,
    "start": measure_start,
}
