"""What is measured: a system in front of a simulator, and how to start one."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from bench.load import Load, run
from bench.outcome import Result
from bench.processes import Kinds, cpu_seconds
from bench.upstream import Upstream


@dataclass(frozen=True)
class Running:
    """A system that serves."""

    port: int
    #: What clients present.
    key: str
    upstream: Upstream
    #: Seconds from the command to ready.
    start_seconds: float
    processes: Callable[[], Kinds]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """A system by name; `start` puts one in front of an upstream, with all its accounts, and ends it afterwards."""

    name: str
    #: Its version, '' when it can't be run here.
    version: Callable[[], str]
    start: Callable[[Upstream], AbstractContextManager[Running]]
    #: Most accounts that it is measured with where only one request may be on each; 0 for one that schedules nothing.
    most: int = 1_000_000


@dataclass(frozen=True)
class Loaded:
    """What a load showed, between its warm-up and its end."""

    result: Result
    warm_up: float
    #: CPU seconds by kind of process.
    cpu: Mapping[str, float]

    @property
    def answers(self) -> int:
        """Right answers in that time."""
        return sum(self.warm_up < end <= self.result.seconds for end in self.result.ends)

    def cpu_per(self, units: float) -> dict[str, float]:
        """CPU seconds per unit of work, by kind, and of all; nothing when no work was done."""
        if not units:
            return {}
        found = {kind: seconds / units for kind, seconds in self.cpu.items()}
        return {**found, "all": sum(found.values())}

    @property
    def errors(self) -> int:
        """Answers that were none."""
        return sum(self.result.errors.values())


def load(
    running: Running,
    clients: int,
    seconds: float,
    warm_up: float,
    *,
    stream: bool = False,
    at_end: Callable[[], None] = lambda: None,
) -> Loaded:
    """Loads the system; `at_end` is called while the load still runs."""
    found: list[dict[str, float]] = []
    # Looked for before: a search in the middle of the load takes as much of a core as all that is measured.
    processes = list(running.processes())

    def watch() -> None:
        time.sleep(warm_up)
        found.append(cpu_seconds(processes))
        time.sleep(seconds - warm_up)
        found.append(cpu_seconds(processes))
        at_end()

    wanted = Load(
        "127.0.0.1", running.port, running.key, clients, seconds, stream, headers=running.headers, traced=stream
    )
    watcher = threading.Thread(target=watch)
    watcher.start()
    result = asyncio.run(run(wanted))
    watcher.join()
    before, after = found
    return Loaded(result, warm_up, {kind: after[kind] - before.get(kind, 0.0) for kind in after})
