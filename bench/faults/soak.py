"""The row in which everything breaks, one thing after another, for ten minutes."""

import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable

from bench.farm import MeasuredFarm, run_farm
from bench.faults.injection import LEASE_SECONDS, in_background, kill_random_worker_process
from bench.faults.invariants import check_nothing_left, check_responses
from bench.faults.scale import FaultScale, run_streams
from bench.measurement import Measurement, at_most, exactly, unbounded
from bench.outcome import CORRECT, LEFT

#: Seconds between two breakages; less in a soak of under 600 s.
INTERVAL_SECONDS = 10.0
#: Share of the run after which memory must stop growing.
WARM_UP_SHARE = 0.25
FAULTS = {"rate_limit": 0.03, "server_error": 0.02, "hang_headers": 0.005, "cut": 0.01}
#: Resident memory in MB by kind of process, at a time in seconds after the start.
MemorySample = tuple[float, dict[str, float]]


def measure_soak(scale: FaultScale) -> list[Measurement]:
    """Everything at once: every request is accounted for, and memory does not grow."""
    row = "all together"
    broken: Counter[str] = Counter()
    samples: list[MemorySample] = []
    with run_farm(
        scale.accounts,
        *scale.pace,
        "--access-ttl",
        "30",
        FARM_WORKER_PROCESSES="2",
        WEB_CONCURRENCY="2",
        FARM_FIRST_BYTE_TIMEOUT="2",
    ) as farm:
        farm.upstream.control("faults", {"seed": scale.seed, **FAULTS})
        with in_background(lambda: break_in_rotation(farm, scale, broken, samples)):
            result = run_streams(farm, scale, leave=0.05, seconds=scale.soak)
        farm.upstream.control("faults", {})
        outcomes = Counter(record.outcome for record in result.records)
        counters = farm.upstream.read_counters()
        hung = counters.get("collisions_with_hung", 0)
        completed, left = outcomes[CORRECT], outcomes[LEFT]
        return [
            *check_responses(row, farm, result, LEFT, "error event", "broken", "status 5", collisions=False),
            exactly(row, "collisions, but with requests that hang in a frozen process", counters["collisions"] - hung),
            unbounded(row, "collisions with requests that hang in a frozen process", hung),
            exactly(row, "requests that are not accounted for", sum(not record.ended for record in result.records)),
            *check_nothing_left(row, farm, scale.accounts),
            *check_memory_growth(row, samples),
            unbounded(row, "requests sent", len(result.records)),
            unbounded(row, "answered", completed),
            unbounded(row, f"errored {dict(result.errors)}", len(result.records) - completed - left),
            unbounded(row, "left", left),
            unbounded(row, f"things broken {dict(broken)}", broken.total()),
        ]


def break_in_rotation(farm: MeasuredFarm, scale: FaultScale, broken: Counter[str], samples: list[MemorySample]) -> None:
    """Breaks one thing after another until two lease lifetimes before the end; samples memory after each round."""
    draw = random.Random(scale.seed)
    started = time.monotonic()
    count = 0
    while time.monotonic() - started < scale.soak - 2 * LEASE_SECONDS:
        time.sleep(INTERVAL_SECONDS * min(1.0, scale.soak / 600))
        name, breakage = BREAKAGES[count % len(BREAKAGES)]
        breakage(farm, draw)
        broken[name] += 1
        count += 1
        if count % len(BREAKAGES) == 0:
            samples.append((time.monotonic() - started, measure_resident_memory(farm)))


def measure_resident_memory(farm: MeasuredFarm) -> dict[str, float]:
    """Mean resident memory in MB of the processes of each kind."""
    sizes: defaultdict[str, list[float]] = defaultdict(list)
    for kind, process in farm.list_processes():
        sizes[kind].append(process.memory_info().rss / 2**20)
    return {kind: sum(values) / len(values) for kind, values in sizes.items()}


def check_memory_growth(row: str, samples: list[MemorySample]) -> list[Measurement]:
    """Growth of each kind of process after the warm-up: the mean of the second half over the mean of the first."""
    if len(samples) < 6:
        return []
    warm = [sizes for seconds, sizes in samples if seconds > WARM_UP_SHARE * samples[-1][0]]
    half = len(warm) // 2
    before, after = warm[:half], warm[half:]

    def mean(values: list[dict[str, float]], kind: str) -> float:
        return sum(sizes[kind] for sizes in values) / len(values)

    kinds = ("front", "workers", "redis", "launcher")
    return [
        at_most(row, f"growth of {kind} in percent", 100 * (mean(after, kind) / mean(before, kind) - 1), 5)
        for kind in kinds
    ]


# Breakages


def kill_front(farm: MeasuredFarm, draw: random.Random) -> None:
    """kill -9 of one front."""
    draw.choice(farm.list_children("gunicorn")).kill()


def kill_connections(farm: MeasuredFarm, draw: random.Random) -> None:
    """Kills all connections to Redis of one type."""
    farm.redis.client.client_kill_filter(_type=draw.choice(("pubsub", "normal")))


def kill_redis(farm: MeasuredFarm, draw: random.Random) -> None:
    """kill -9 of Redis, restarted after a second."""
    farm.redis.kill()
    time.sleep(1)
    farm.redis.start()


def freeze_worker_process(farm: MeasuredFarm, draw: random.Random) -> None:
    """SIGSTOP of a worker process until its leases have expired."""
    process = draw.choice(farm.list_children("-m workers"))
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * LEASE_SECONDS)
    process.send_signal(signal.SIGCONT)


def reload_fronts(farm: MeasuredFarm, draw: random.Random) -> None:
    """SIGHUP of gunicorn's master: new fronts start, the old ones stop gracefully."""
    farm.find_master("gunicorn").send_signal(signal.SIGHUP)


BREAKAGES: tuple[tuple[str, Callable[[MeasuredFarm, random.Random], None]], ...] = (
    ("worker killed", kill_random_worker_process),
    ("connections killed", kill_connections),
    ("front reloaded", reload_fronts),
    ("worker frozen", freeze_worker_process),
    ("connections killed", kill_connections),
    ("front killed", kill_front),
    ("Redis killed", kill_redis),
)
