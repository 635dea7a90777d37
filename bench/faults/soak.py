"""The row in which everything is broken at once, for ten minutes."""

import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable

from bench.farm import Bench, farm
from bench.faults.common import LEASE, Scale, load, meanwhile, nothing_left, sound, workers
from bench.measured import Measured, at_most, exactly, told
from bench.outcome import LEFT, RIGHT

#: Seconds between two things that are broken.
EVERY = 10.0
#: Share of the run after which memory has to stand still.
WARM = 0.25
FAULTS = {"rate_limit": 0.03, "server_error": 0.02, "hang_headers": 0.005, "cut": 0.01}


def soak(scale: Scale) -> list[Measured]:
    """Everything at once: every request is accounted for, and memory stands still."""
    row = "all together"
    draw = random.Random(scale.seed)
    done: Counter[str] = Counter()
    sizes: list[tuple[float, dict[str, float]]] = []
    with farm(
        scale.accounts,
        *scale.pace,
        "--access-ttl",
        "30",
        FARM_WORKER_PROCESSES="2",
        WEB_CONCURRENCY="2",
        FARM_FIRST_BYTE_TIMEOUT="2",
    ) as bench:
        bench.upstream.ask("faults", {"seed": scale.seed, **FAULTS})
        began = time.monotonic()

        def breaking() -> None:
            turn = 0
            while time.monotonic() - began < scale.soak - 2 * LEASE:
                time.sleep(EVERY * scale.soak / 600 if scale.soak < 600 else EVERY)
                name, work = BREAKING[turn % len(BREAKING)]
                work(bench, draw)
                done[name] += 1
                turn += 1
                if turn % len(BREAKING) == 0:
                    sizes.append((time.monotonic() - began, resident(bench)))

        with meanwhile(breaking):
            result = load(bench, scale, leave=0.05, seconds=scale.soak)
        bench.upstream.ask("faults", {})
        outcomes = Counter(one.outcome for one in result.records)
        counts = bench.upstream.counters()
        hung = counts.get("collisions_with_hung", 0)
        answered, left = outcomes[RIGHT], outcomes[LEFT]
        errored = len(result.records) - answered - left
        return [
            *sound(row, bench, result, LEFT, "error event", "broken", "status 5", collisions=False),
            exactly(row, "collisions, but with requests that hang in a frozen process", counts["collisions"] - hung),
            told(row, "collisions with requests that hang in a frozen process", hung),
            exactly(row, "requests that are not accounted for", sum(one.ended == 0 for one in result.records)),
            *nothing_left(row, bench, scale.accounts),
            *growth(row, sizes),
            told(row, "requests sent", len(result.records)),
            told(row, "answered", answered),
            told(row, f"errored {dict(result.errors)}", errored),
            told(row, "left", left),
            told(row, f"things broken {dict(done)}", done.total()),
        ]


def resident(bench: Bench) -> dict[str, float]:
    """MB of resident memory of a process of each kind, on average."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for kind, process in bench.processes():
        found[kind].append(process.memory_info().rss / 2**20)
    return {kind: sum(sizes) / len(sizes) for kind, sizes in found.items()}


def growth(row: str, sizes: list[tuple[float, dict[str, float]]]) -> list[Measured]:
    """By how much each kind of process has grown since it was warm: the mean of the last third over that before."""
    if len(sizes) < 6:
        return []
    warm = [found for at, found in sizes if at > WARM * sizes[-1][0]]
    half = len(warm) // 2
    before, after = warm[:half], warm[half:]

    def mean(found: list[dict[str, float]], kind: str) -> float:
        return sum(one[kind] for one in found) / len(found)

    kinds = ("front", "workers", "redis", "launcher")
    return [
        at_most(row, f"growth of {kind} in percent", 100 * (mean(after, kind) / mean(before, kind) - 1), 5)
        for kind in kinds
    ]


# What is broken


def kill_worker(bench: Bench, draw: random.Random) -> None:
    """kill -9 of a worker process."""
    workers(bench, draw)


def kill_front(bench: Bench, draw: random.Random) -> None:
    """kill -9 of a front process."""
    draw.choice(bench.below("gunicorn")).kill()


def kill_connections(bench: Bench, draw: random.Random) -> None:
    """Connections to Redis, of a kind."""
    bench.redis.client.client_kill_filter(_type=draw.choice(("pubsub", "normal")))


def kill_redis(bench: Bench, draw: random.Random) -> None:
    """kill -9 of Redis, back after a second."""
    bench.redis.kill()
    time.sleep(1)
    bench.redis.start()


def freeze_worker(bench: Bench, draw: random.Random) -> None:
    """SIGSTOP of a worker process for longer than its leases live."""
    process = draw.choice(bench.below("-m workers"))
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * LEASE)
    process.send_signal(signal.SIGCONT)


def reload_front(bench: Bench, draw: random.Random) -> None:
    """SIGHUP of gunicorn's master: new processes, the old ones end gracefully."""
    bench.master("gunicorn").send_signal(signal.SIGHUP)


BREAKING: tuple[tuple[str, Callable[[Bench, random.Random], None]], ...] = (
    ("worker killed", kill_worker),
    ("connections killed", kill_connections),
    ("front reloaded", reload_front),
    ("worker frozen", freeze_worker),
    ("connections killed", kill_connections),
    ("front killed", kill_front),
    ("Redis killed", kill_redis),
)
