"""What is measured of each system: one run of one scenario, as samples. Every answer is checked against its request."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import mean

from bench.compare.figures import Sample
from bench.compare.system import Loaded, Running, System, load
from bench.processes import memory
from bench.upstream import simulator

#: Chunks of a stream, and the seconds between two of them.
CHUNKS, CHUNK_DELAY = 100, 0.02
STREAM_SECONDS = CHUNKS * CHUNK_DELAY
#: Times that a queue turns over while its cost is measured, at a thousand answers a second.
TURNS = 3


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    #: Accounts and the seconds that their answers take.
    grid: tuple[tuple[int, float], ...] = ((8, 0.2), (8, 1), (8, 5), (100, 0.2), (100, 1), (100, 5), (1000, 5))
    #: Clients without an upstream delay.
    clients: tuple[int, ...] = (1, 50, 200)
    streams: tuple[int, ...] = (50, 100, 200)
    credentials: tuple[int, ...] = (10, 100, 1000)
    depths: tuple[int, ...] = (0, 1000, 10_000)
    #: Seconds of a load, less the warm-up.
    seconds: float = 8.0


#: A look at whether everything still works, in seconds.
SMOKE = Scale(grid=((4, 0.2),), clients=(1, 4), streams=(4,), credentials=(4,), depths=(0, 20), seconds=1.0)


def utilisation(system: System, scale: Scale) -> Iterator[Sample]:
    """Exclusive accounts and twice as many clients: how much of the accounts' time is used."""
    for accounts, service in scale.grid:
        if accounts > system.most:
            continue
        case = f"{accounts} accounts, {service:g} s"
        warm_up = 2.0 + 2 * service
        seconds = warm_up + max(scale.seconds, 2 * service)
        loaded: dict[str, float] = {}

        with simulator(accounts, "--delay", str(service)) as upstream, system.start(upstream) as running:
            load(running, accounts, 1.0, 0.5)
            weigh = partial(weighed, running, loaded)
            found = load(running, 2 * accounts, seconds, warm_up, at_end=weigh)
            share = found.result.busy_seconds(service, warm_up) / (seconds - warm_up) / accounts
            yield Sample("utilisation", case, system.name, "share of the ideal", share)
            yield from soundness("utilisation", case, system, running, found)
            yield Sample("utilisation", case, system.name, "MB PSS under load", sum(loaded.values()))


def weighed(running: Running, found: dict[str, float]) -> None:
    """Takes note of the memory of its processes."""
    found.update(memory(running.processes()))


def overhead(system: System, scale: Scale) -> Iterator[Sample]:
    """No upstream delay: requests/s, CPU time per request, latency."""
    with simulator(100) as upstream, system.start(upstream) as running:
        load(running, 50, 2.0, 0.5)
        for clients in scale.clients:
            case = f"{clients} client{'s' if clients > 1 else ''}"
            found = load(running, clients, 1.0 + scale.seconds, 1.0)
            yield Sample("overhead", case, system.name, "requests/s", found.answers / scale.seconds)
            yield from soundness("overhead", case, system, running, found)
            for kind, seconds in found.cpu_per(found.answers).items():
                yield Sample("overhead", case, system.name, f"CPU ms per request: {kind}", 1000 * seconds)
            for share in (0.5, 0.99):
                latency = 1000 * found.result.percentile(share)
                yield Sample("overhead", case, system.name, f"latency p{100 * share:g}, ms", latency)


def streaming(system: System, scale: Scale) -> Iterator[Sample]:
    """Streams of 100 chunks, 20 ms apart, one on each account, and as many clients."""
    for streams in scale.streams:
        case = f"{streams} streams"
        pace = ("--chunks", str(CHUNKS), "--chunk-delay", str(CHUNK_DELAY))
        warm_up = STREAM_SECONDS
        seconds = warm_up + max(scale.seconds, STREAM_SECONDS)
        with simulator(streams, *pace) as upstream, system.start(upstream) as running:
            load(running, streams, 1.0, 0.5, stream=True)
            found = load(running, streams, seconds, warm_up, stream=True)
            busy = found.result.busy_seconds(STREAM_SECONDS, warm_up)
            share = busy / (seconds - warm_up) / streams
            yield Sample("streaming", case, system.name, "share of the ideal rate", share)
            yield from soundness("streaming", case, system, running, found)
            for kind, cpu in found.cpu_per(busy / CHUNK_DELAY).items():
                yield Sample("streaming", case, system.name, f"CPU us per chunk: {kind}", 1e6 * cpu)
            gap = found.result.percentile(0.99, found.result.gaps) - CHUNK_DELAY
            yield Sample("streaming", case, system.name, "added gap p99, ms", 1000 * gap)
            first = found.result.percentile(0.5, found.result.first_bytes)
            yield Sample("streaming", case, system.name, "first byte p50, ms", 1000 * first)


def growth(system: System, scale: Scale) -> Iterator[Sample]:
    """Cost of a request, and memory, with many credentials, and with many requests that wait.

    From the least to the most and back, because the machine may become slower or faster meanwhile.
    """
    cost: defaultdict[str, list[float]] = defaultdict(list)
    for credentials in there_and_back(scale.credentials):
        with simulator(credentials) as upstream, system.start(upstream) as running:
            # As many clients in each case, and none waits.
            found = load(running, min(scale.credentials), 2.0 + 2 * scale.seconds, 2.0)
            yield from costs(f"{credentials} credentials", system, running, found, cost)
    for depth in there_and_back(scale.depths):
        with simulator(50) as upstream, system.start(upstream) as running:
            # 500 answers a second is less than what is served: a queue has turned over once when the warm-up is over.
            warm_up = 2.0 + depth / 500
            # Clients that came together are answered together, and come together again: only what is measured over
            # several turns of them all is what a request costs.
            seconds = max(2 * scale.seconds, TURNS * depth / 1000)
            found = load(running, 50 + depth, warm_up + seconds, warm_up)
            yield from costs(f"depth {depth}", system, running, found, cost)
    (few, many), (empty, full) = ends(scale.credentials), ends(scale.depths)
    ratios = {
        f"{many} over {few} credentials": mean(cost[f"{many} credentials"]) / mean(cost[f"{few} credentials"]),
        f"depth {full} over {empty}": mean(cost[f"depth {full}"]) / mean(cost[f"depth {empty}"]),
    }
    for case, ratio in ratios.items():
        yield Sample("growth", case, system.name, "cost per request", ratio)


def there_and_back(values: tuple[int, ...]) -> tuple[int, ...]:
    """1, 2, 3, 2, 1."""
    return (*values, *reversed(values[:-1]))


def ends(values: tuple[int, ...]) -> tuple[int, int]:
    """The first and the last."""
    return values[0], values[-1]


def costs(case: str, system: System, running: Running, found: Loaded, cost: dict[str, list[float]]) -> Iterator[Sample]:
    """CPU time per request, kept in `cost` too, and memory."""
    cost[case].append(1000 * found.cpu_per(found.answers)["all"])
    yield Sample("growth", case, system.name, "CPU ms per request", cost[case][-1])
    yield Sample("growth", case, system.name, "MB PSS", sum(memory(running.processes()).values()))
    yield Sample("growth", case, system.name, "errors at clients", found.errors)


def start(system: System, scale: Scale) -> Iterator[Sample]:
    """From the command to ready, with 100 accounts; memory at rest and after a load."""
    with simulator(100) as upstream, system.start(upstream) as running:
        yield Sample("start", "warm", system.name, "seconds to ready", running.start_seconds)
        yield Sample("start", "warm", system.name, "MB PSS idle", sum(memory(running.processes()).values()))
        load(running, 50, 1.0 + scale.seconds, 1.0)
        yield Sample("start", "warm", system.name, "MB PSS after a load", sum(memory(running.processes()).values()))


def soundness(scenario: str, case: str, system: System, running: Running, found: Loaded) -> Iterator[Sample]:
    """Two requests on one account, and answers that were none."""
    yield Sample(scenario, case, system.name, "collisions", running.upstream.counters()["collisions"])
    yield Sample(scenario, case, system.name, "errors at clients", found.errors)


SCENARIOS = {
    "utilisation": utilisation,
    "overhead": overhead,
    "streaming": streaming,
    "growth": growth,
    "start": start,
}
