"""What viewers of the console's live pages cost: on a large farm, and beside a load."""

import asyncio
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

from bench.console.content import fill_farm
from bench.console.front import ADMIN_TOKEN, run_front
from bench.farm import API_KEY, KillableRedis, MeasuredFarm, run_farm
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, at_most, unbounded

SCENARIO = "live"
#: Pages of the five viewers.
VIEWED = ("queue", "queue", "queue", "overview", "overview")
#: Most that they may take of one processor, and of the front's CPU time per request, as a share.
MAX_SHARE = 0.02
#: Accounts and clients of the load, some of whom wait; answers take that long, in seconds.
ACCOUNTS, CLIENTS, DELAY = 50, 60, 0.2
#: Pairs of loads, without and with viewers by turns, and the length of one.
ROUNDS, ROUND_SECONDS = 6, 6.0


def measure_live(seconds: float) -> list[Measurement]:
    """Five viewers of live pages: CPU of the front on a farm of 1,000 accounts with 500 waiting, and beside a load."""
    return [*measure_large(max(5.0, min(seconds, 20.0))), *measure_beside_load(ROUNDS)]


@contextmanager
def watch(url: str, pages: Sequence[str]) -> Iterator[Callable[[], int]]:
    """Viewers of these pages; yields a function that counts the messages that they have got."""
    counts = [0] * len(pages)
    with ExitStack() as streams:
        for number, page in enumerate(pages):
            request = urllib.request.Request(
                f"{url}/admin/live?page={page}&every=1", headers={"authorization": f"Bearer {ADMIN_TOKEN}"}
            )
            stream = streams.enter_context(urllib.request.urlopen(request))
            Thread(target=count_messages, args=(stream, counts, number), daemon=True).start()
        yield lambda: sum(counts)


def count_messages(stream: Iterator[bytes], counts: list[int], number: int) -> None:
    try:
        for line in stream:
            counts[number] += line == b"\n"
    except (OSError, ValueError, AttributeError):
        return  # The viewer has left.


def measure_large(seconds: float) -> list[Measurement]:
    """CPU time of a front that does nothing else."""
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as data:
        redis = KillableRedis(Path(data) / "store")
        try:
            fill_farm(redis.client)
            with run_front(redis, Path(data)) as front:
                alone = measure_share(front.measure_cpu, seconds)
                shares = {}
                for viewers in (1, len(VIEWED)):
                    with watch(front.url, VIEWED[:viewers]) as count:
                        time.sleep(1.5)
                        shares[viewers] = measure_share(front.measure_cpu, seconds) - alone
                        messages = count()
        finally:
            redis.process.terminate()
            redis.process.wait()
    label = "1,000 accounts, 500 waiting"
    return [
        unbounded(SCENARIO, f"{label}: share of a processor, one viewer", shares[1]),
        at_most(SCENARIO, f"{label}: share of a processor, five viewers", shares[len(VIEWED)], MAX_SHARE),
        at_least(SCENARIO, f"{label}: messages to five viewers", messages, 2 * len(VIEWED)),
    ]


def measure_share(measure_cpu: Callable[[], float], seconds: float) -> float:
    before, started = measure_cpu(), time.monotonic()
    time.sleep(seconds)
    return round((measure_cpu() - before) / (time.monotonic() - started), 4)


def measure_beside_load(rounds: int) -> list[Measurement]:
    """Front's CPU time per request, requests per second and latency, without viewers and with five, by turns."""
    with run_farm(
        ACCOUNTS, "--delay", str(DELAY), FARM_ADMIN_TOKEN=ADMIN_TOKEN, WEB_CONCURRENCY="1", FARM_WORKER_PROCESSES="1"
    ) as farm:
        url = f"http://127.0.0.1:{farm.port}"
        measure_load(farm)
        without, beside = list[tuple[float, float, float]](), list[tuple[float, float, float]]()
        for _ in range(rounds):
            without.append(measure_load(farm))
            with watch(url, VIEWED):
                beside.append(measure_load(farm))
    figures = ("front's CPU ms per request", "requests per second", "share of a processor that the front takes")
    rows = []
    for number, figure in enumerate(figures):
        alone, watched = (statistics.median(run[number] for run in runs) for runs in (without, beside))
        rows += [
            unbounded(SCENARIO, f"beside a load: {figure}, no viewer", round(alone, 4)),
            unbounded(SCENARIO, f"beside a load: {figure}, five viewers", round(watched, 4)),
        ]
    return rows


def measure_load(farm: MeasuredFarm) -> tuple[float, float, float]:
    """The front's CPU time per request in milliseconds, requests per second, and its share of a processor."""
    before = farm.measure_cpu_seconds()["front"]
    result = asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, CLIENTS, ROUND_SECONDS)))
    used = farm.measure_cpu_seconds()["front"] - before
    return 1000 * used / len(result.end_times), len(result.end_times) / result.seconds, used / result.seconds
