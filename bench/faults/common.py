"""What the rows share: how large they are run, the load, and what holds whatever is broken."""

import asyncio
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.farm import KEY, Bench
from bench.load import Load, run
from bench.measured import Measured, exactly
from bench.outcome import MIXED, STUCK, TRUNCATED, Result

#: Seconds of a load that are left out of rates.
WARM_UP = 3.0
#: Seconds that a lease lives (workers.leases.LEASE_SECONDS).
LEASE = 10.0


@dataclass(frozen=True)
class Scale:
    """How large a row is run."""

    accounts: int = 100
    clients: int = 200
    seconds: float = 30.0
    #: Seconds of one stream, and its pieces.
    stream: float = 2.0
    pieces: int = 50
    seed: int = 1
    #: Seconds of the row in which everything is broken.
    soak: float = 600.0
    #: Lease times that a process is frozen.
    frozen: float = 3.0

    @property
    def pace(self) -> tuple[str, ...]:
        """The simulator's arguments for such streams."""
        return ("--chunks", str(self.pieces), "--chunk-delay", f"{self.stream / self.pieces:g}")


def load(bench: Bench, scale: Scale, *, leave: float = 0.0, clients: int = 0, seconds: float = 0.0) -> Result:
    """Streams, every one checked."""
    wanted = Load(
        "127.0.0.1",
        bench.port,
        KEY,
        clients or scale.clients,
        seconds or scale.seconds,
        stream=True,
        leave=leave,
        seed=scale.seed,
    )
    return asyncio.run(run(wanted))


#: A quick look on any machine, and what the test suite runs.
SMALL = Scale(accounts=16, clients=32, seconds=9, stream=0.8, pieces=20, soak=45, frozen=1.4)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Does the work in a thread; what it raises is raised at the end."""
    failures: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    if failures:
        raise failures[0]


def errors_but(result: Result, *allowed: str) -> dict[str, int]:
    """The outcomes other than right and those that begin so."""
    return {one: count for one, count in result.errors.items() if not one.startswith(allowed)}


def sound(row: str, bench: Bench, result: Result, *allowed: str, collisions: bool = True) -> list[Measured]:
    """What holds whatever is broken: no collision, nothing short, mixed or stuck, no error but the allowed."""
    others = errors_but(result, *allowed) if allowed else dict(result.errors)
    bad = {one: result.errors[one] for one in (TRUNCATED, MIXED, STUCK) if result.errors[one]}
    found = [exactly(row, f"answers short, mixed or stuck {bad or ''}".strip(), sum(bad.values()))]
    if collisions:
        found.append(exactly(row, "collisions at the upstream", bench.upstream.counters()["collisions"]))
    return [*found, exactly(row, f"errors beside those {others or ''}".strip(), sum(others.values()))]


def share(result: Result, scale: Scale, accounts: float, since: float = WARM_UP, until: float | None = None) -> float:
    """Share of so many accounts' time that was spent on right answers."""
    end = result.seconds if until is None else until
    return result.busy_seconds(scale.stream, since, end) / (end - since) / accounts


def workers(bench: Bench, draw: random.Random, signum: int = signal.SIGKILL) -> None:
    """Signals a worker process."""
    draw.choice(bench.below("-m workers")).send_signal(signum)


def nothing_left(row: str, bench: Bench, accounts: int) -> list[Measured]:
    """After the load: no job in any registry of RQ's, no account held, every worker idle."""
    until = time.monotonic() + 15
    while (counts := remains(bench))["jobs"] + counts["held"] or counts["idle"] < accounts:
        if time.monotonic() > until:
            break
        time.sleep(0.3)
    return [
        exactly(row, "jobs left in Redis", counts["jobs"]),
        exactly(row, "accounts still held", counts["held"]),
        exactly(row, "idle workers", counts["idle"], accounts),
    ]


def remains(bench: Bench) -> dict[str, int]:
    """What is there after a load."""
    redis = bench.redis.client
    queued = redis.llen("rq:queue:chat:default") + redis.llen("rq:queue:chat:default:intermediate")
    running = redis.zcard("rq:wip:chat:default") + len(redis.keys("farm:body:*"))
    idle = bench.status()["pools"][0]["workers"]["idle"]
    return {"jobs": queued + running, "held": bench.upstream.counters()["in_flight"], "idle": idle}
