"""What the farm's own HTTPS endpoint costs, beside the same farm without it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from bench.compare.system import LoadMeasurement, RunningSystem, measure_load
from bench.farm import API_KEY, MeasuredFarm, find_free_port, run_farm
from bench.measurement import Measurement, exactly, unbounded
from launcher.processes.https.proxy import LOCAL_ROOT

ACCOUNTS = 50
#: Events of a stream, and seconds between two of them.
CHUNKS, CHUNK_DELAY = 100, 0.02
WARM_UP_SECONDS = 2.0
#: Each load is put on the two farms by turns, so that both share the state of the machine.
TURNS = 3
#: A figure of one load.
Figure = Callable[[LoadMeasurement], float]


def measure_https(seconds: float) -> list[Measurement]:
    """The HTTPS endpoint's share of CPU per request and chunk, and what it adds to the latency (HTTP/1.1 over TLS)."""
    port = find_free_port()
    with (
        run_farm(ACCOUNTS) as plain_farm,
        run_farm(ACCOUNTS, FARM_HTTPS="internal", FARM_HTTPS_PORT=str(port)) as secure_farm,
    ):
        certificate = str(Path(secure_farm.environment["FARM_DATA_DIR"]) / LOCAL_ROOT)
        plain = describe(plain_farm, plain_farm.port)
        systems = {"plain": plain, "https": describe(secure_farm, port, certificate)}
        measurements = [
            *measure_case(systems, "CPU ms per request, 50 clients", 50, seconds, find_request_cost),
            *measure_case(systems, "latency p50 ms, 1 client", 1, seconds, find_median_latency),
        ]
        for system in systems.values():
            system.upstream.control("pace", {"chunks": CHUNKS, "chunk_delay": CHUNK_DELAY})
        measurements += measure_case(systems, "CPU us per chunk, 50 streams", 50, seconds, find_chunk_cost, stream=True)
        measurements.append(unbounded("https", "MB PSS of the proxy", secure_farm.measure_memory()["proxy"]))
    return measurements


def describe(farm: MeasuredFarm, port: int, certificate: str = "") -> RunningSystem:
    return RunningSystem(port, API_KEY, farm.upstream, farm.start_seconds, farm.list_processes, certificate=certificate)


def measure_case(
    systems: Mapping[str, RunningSystem],
    name: str,
    clients: int,
    seconds: float,
    find_figure: Figure,
    *,
    stream: bool = False,
) -> list[Measurement]:
    """The medians of a figure without and with the endpoint, their ratio, the proxy's part, and failed requests."""
    values: dict[str, list[float]] = {kind: [] for kind in systems}
    shares: list[float] = []
    errors = 0
    for _ in range(TURNS):
        for kind, system in systems.items():
            load = measure_load(system, clients, WARM_UP_SECONDS + seconds, WARM_UP_SECONDS, stream=stream)
            values[kind].append(find_figure(load))
            errors += load.errors
            if kind == "https":
                shares.append(load.cpu["proxy"] / sum(load.cpu.values()))
    plain, https = (median(values[kind]) for kind in ("plain", "https"))
    return [
        unbounded("https", f"{name}: without", round(plain, 3)),
        unbounded("https", f"{name}: with", round(https, 3)),
        unbounded("https", f"{name}: with, over without", round(https / plain, 3)),
        unbounded("https", f"{name}: proxy's share of the CPU", round(median(shares), 3)),
        exactly("https", f"{name}: errors at clients", errors),
    ]


def find_request_cost(load: LoadMeasurement) -> float:
    """CPU milliseconds per request."""
    return 1000 * load.cpu_per(load.completed)["all"]


def find_chunk_cost(load: LoadMeasurement) -> float:
    """CPU microseconds per chunk."""
    busy = load.result.busy_seconds(CHUNKS * CHUNK_DELAY, load.warm_up)
    return 1e6 * load.cpu_per(busy / CHUNK_DELAY)["all"]


def find_median_latency(load: LoadMeasurement) -> float:
    """Milliseconds."""
    return 1000 * load.result.percentile(0.5)
