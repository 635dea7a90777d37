"""Pace of accounts with limits: how much of what the upstream allows is used, what is refused, what pacing costs."""

import asyncio
import json
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.farm import API_KEY, MeasuredFarm, run_farm
from bench.faults.injection import in_background
from bench.faults.restarts import start_worker_host
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, at_most, exactly, unbounded
from simulator.allowances import Arrival

SCENARIO = "pacing"
ACCOUNTS = 50
#: Requests that the upstream allows each account in any window.
LIMIT, WINDOW_SECONDS = 10, 60.0
#: A run has to be long enough for the windows after those in which workers are restarted.
MIN_SECONDS = 240.0
MIN_USED = 0.98
#: Streams of one second in five pieces.
STREAM = ("--chunks", "5", "--chunk-delay", "0.2")
#: Seconds for which a client waits: a minute behind another one, and more.
TIMEOUT_SECONDS = 300.0

#: Limits too high for any load. A gap has no such value: accounts that are busy without a pause reach any.
UNREACHED = {
    "FARM_ACCOUNT_RPM": "100000000",
    "FARM_ACCOUNT_TPM": "100000000",
    "FARM_ACCOUNT_RPD": "100000000",
}
COST_ACCOUNTS, COST_CLIENTS = 100, 50
#: Loads of each farm, by turns, and the length of one.
COST_ROUNDS, COST_SECONDS = 10, 6.0
MAX_COST_RATIO = 1.05


@dataclass(frozen=True)
class Row:
    """How the farm learns of the limit."""

    name: str
    #: Whether the upstream's responses tell what is left.
    is_told: bool
    settings: Mapping[str, str] = field(default_factory=dict)


BY_HEADERS = Row("headers", is_told=True)
BY_SETTINGS = Row("settings", is_told=False, settings={"FARM_ACCOUNT_RPM": str(LIMIT)})


def measure_pacing(seconds: float) -> list[Measurement]:
    """Upstream with 10 requests a minute per account: share used, refusals (240 s at least); CPU of the limits."""
    length = max(seconds, MIN_SECONDS)
    with ThreadPoolExecutor() as pool:
        # Both farms are nearly idle.
        rows = list(pool.map(lambda row: measure_row(row, length), (BY_HEADERS, BY_SETTINGS)))
    return [*rows[0], *rows[1], *measure_cost(COST_ROUNDS)]


def measure_row(row: Row, seconds: float, accounts: int = ACCOUNTS) -> list[Measurement]:
    """Twice as many clients as accounts, so that a request waits whenever one may be sent."""
    allowances = {"requests": LIMIT, "window": WINDOW_SECONDS, "sliding": True, "shown": row.is_told}

    def limit_accounts(farm: MeasuredFarm) -> None:
        farm.upstream.control("allowances", allowances)

    with run_farm(accounts, *STREAM, prepare=limit_accounts, **row.settings) as farm:
        with in_background(lambda: move_workers(farm, seconds)):
            load = Load("127.0.0.1", farm.port, API_KEY, 2 * accounts, seconds, stream=True, timeout=TIMEOUT_SECONDS)
            result = asyncio.run(run_load(load))
        arrivals = [Arrival(*values) for values in farm.upstream.control("arrivals")]
        errors = exactly(
            SCENARIO, f"{row.name}: errors at clients {dict(result.errors) or ''}".strip(), sum(result.errors.values())
        )
    return [*describe_arrivals(row, arrivals, seconds, accounts), errors]


def move_workers(farm: MeasuredFarm, seconds: float) -> None:
    """The worker processes are restarted; another host joins, and takes over all accounts; that one ends again."""
    started = time.monotonic()
    wait_until(started + seconds / 3)
    farm.find_master("-m workers").send_signal(signal.SIGTERM)
    wait_until(started + seconds / 2)
    before = count_owners(farm)
    host = start_worker_host(farm)
    while count_owners(farm) <= before:
        time.sleep(0.5)
    # The launcher starts its own host again.
    farm.find_master("-m workers").send_signal(signal.SIGTERM)
    wait_until(started + seconds * 2 / 3)
    host.terminate()
    host.wait()


def wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def count_owners(farm: MeasuredFarm) -> int:
    """Worker processes that hold credentials."""
    credentials = json.loads(farm.run_command("credentials", "list", "--json"))
    return len({credential["owner"] for credential in credentials} - {""})


def describe_arrivals(row: Row, arrivals: Sequence[Arrival], seconds: float, accounts: int) -> list[Measurement]:
    """`arrivals`: what the upstream was asked for, while there was a backlog for `seconds` from the first one on."""
    start = min(arrival.at for arrival in arrivals)
    refused_at = [arrival.at - start for arrival in arrivals if not arrival.is_allowed]
    late = sum(at >= WINDOW_SECONDS for at in refused_at)
    return [
        at_least(SCENARIO, f"{row.name}: used of what is allowed", measure_used(arrivals, seconds, accounts), MIN_USED),
        unbounded(SCENARIO, f"{row.name}: requests sent", len(arrivals)),
        unbounded(SCENARIO, f"{row.name}: least seconds from a request to the tenth after it", find_least(arrivals)),
        unbounded(SCENARIO, f"{row.name}: refusals (429) in the first minute", len(refused_at) - late)
        if row.is_told
        else exactly(SCENARIO, f"{row.name}: refusals (429) in the first minute", len(refused_at) - late),
        exactly(SCENARIO, f"{row.name}: refusals (429) after it", late),
    ]


def measure_used(arrivals: Sequence[Arrival], seconds: float, accounts: int) -> float:
    """The share that was used of what a strictly sliding window allows; 1.0 at most.

    In k whole windows there is room for k times the limit. How much of it seems used depends on where the first of
    these windows begins, so this is the mean over all its beginnings within one window after the first request.
    Raises ValueError for less than two windows.
    """
    windows = int(seconds // WINDOW_SECONDS) - 1
    if windows < 1:
        raise ValueError(f"{seconds:g} s are too short")
    start = min(arrival.at for arrival in arrivals)
    used = sum(weigh(arrival.at - start, windows) for arrival in arrivals if arrival.is_allowed)
    return used / (LIMIT * windows * accounts)


def weigh(at: float, windows: int) -> float:
    """Of the spans of so many windows that begin within the first window, the share that has this moment in it."""
    return max(0.0, min(1.0, at / WINDOW_SECONDS, windows + 1 - at / WINDOW_SECONDS))


def find_least(arrivals: Sequence[Arrival]) -> float:
    """The least time from an account's allowed request to the LIMIT-th after it: below the window, one is refused."""
    times: defaultdict[int, list[float]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.is_allowed:
            times[arrival.account].append(arrival.at)
    spans = (after - at for sent in times.values() for at, after in zip(sent, sent[LIMIT:], strict=False))
    return round(min(spans, default=0.0), 4)


def measure_cost(rounds: int) -> list[Measurement]:
    """Two farms, one with limits that are never reached, loaded by turns."""
    with run_farm(COST_ACCOUNTS) as off, run_farm(COST_ACCOUNTS, prepare=None, **UNREACHED) as on:
        farms = (off, on)
        for farm in farms:
            measure_cpu(farm)
        costs = [measure_pair(farms if number % 2 else farms[::-1]) for number in range(rounds)]
        ratio = statistics.median(cost[on.port] / cost[off.port] for cost in costs)
        round_trips = [count_round_trips(farm) for farm in farms]
        rests = on.read_metric("farm_account_rests_total")
    return [
        *(
            unbounded(
                SCENARIO, f"cost: CPU ms per request, limits {name}", statistics.median(c[farm.port] for c in costs)
            )
            for name, farm in (("off", off), ("on", on))
        ),
        at_most(SCENARIO, "cost: CPU per request with rpm, tpm and rpd, times that without", ratio, MAX_COST_RATIO),
        unbounded(SCENARIO, "cost: round trips to Redis per request, limits off", round_trips[0]),
        unbounded(SCENARIO, "cost: round trips to Redis per request, limits on", round_trips[1]),
        exactly(SCENARIO, "cost: times that a limit was reached", rests),
    ]


def measure_pair(farms: Sequence[MeasuredFarm]) -> dict[int, float]:
    """CPU ms per request, by the port of the farm."""
    return {farm.port: measure_cpu(farm) for farm in farms}


def measure_cpu(farm: MeasuredFarm) -> float:
    """CPU ms per request of all processes of the farm."""
    before = sum(farm.measure_cpu_seconds().values())
    result = asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, COST_CLIENTS, COST_SECONDS)))
    return 1000 * (sum(farm.measure_cpu_seconds().values()) - before) / len(result.end_times)


def count_round_trips(farm: MeasuredFarm) -> float:
    """Times per request that Redis has read from a connection, with one client."""
    before = farm.redis.client.info("stats")["total_reads_processed"]
    result = asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, 1, COST_SECONDS)))
    reads = int(farm.redis.client.info("stats")["total_reads_processed"]) - int(before)
    return round(reads / len(result.end_times), 2)
