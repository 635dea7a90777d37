"""A system in front of a simulator, and one load on it."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from bench.load import Load, run_load
from bench.outcome import LoadResult
from bench.processes import LabelledProcesses, sum_cpu_seconds
from bench.simulator import SimulatorProcess


@dataclass(frozen=True)
class RunningSystem:
    """A system that is ready for requests."""

    port: int
    #: API key of the clients.
    key: str
    upstream: SimulatorProcess
    #: Seconds from the command until the system was ready.
    start_seconds: float
    list_processes: Callable[[], LabelledProcesses]
    #: Additional request headers.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The file to trust when the system speaks HTTPS; '' for plain HTTP.
    certificate: str = ""


@dataclass(frozen=True)
class System:
    """A system that can be measured."""

    name: str
    #: Returns its version, '' when it is not installed.
    find_version: Callable[[], str]
    #: Runs it in front of an upstream, with all of the upstream's accounts, and stops it on exit.
    start: Callable[[SimulatorProcess], AbstractContextManager[RunningSystem]]
    #: Most accounts that it is measured with where each serves one request at a time; 0 when it schedules nothing.
    max_accounts: int = 1_000_000


@dataclass(frozen=True)
class LoadMeasurement:
    """A load and its CPU time, measured from the end of the warm-up to the end of the load."""

    result: LoadResult
    #: Seconds.
    warm_up: float
    #: CPU seconds by kind of process.
    cpu: Mapping[str, float]

    @property
    def completed(self) -> int:
        """Correct responses in that time."""
        return sum(self.warm_up < end <= self.result.seconds for end in self.result.end_times)

    def cpu_per(self, units: float) -> dict[str, float]:
        """CPU seconds per unit of work, by kind of process and as `all`; empty when no work was done."""
        if not units:
            return {}
        by_kind = {kind: seconds / units for kind, seconds in self.cpu.items()}
        return {**by_kind, "all": sum(by_kind.values())}

    @property
    def errors(self) -> int:
        """Responses of the whole load that were not correct."""
        return sum(self.result.errors.values())


def measure_load(
    system: RunningSystem,
    clients: int,
    seconds: float,
    warm_up: float,
    *,
    stream: bool = False,
    at_end: Callable[[], None] = lambda: None,
) -> LoadMeasurement:
    """Loads the system; `at_end` is called at the end, while the last requests are still in flight."""
    readings: list[dict[str, float]] = []
    # Listed in advance: a scan of all processes during the load takes as much CPU as everything that is measured.
    processes = list(system.list_processes())

    def read_cpu() -> None:
        time.sleep(warm_up)
        readings.append(sum_cpu_seconds(processes))
        time.sleep(seconds - warm_up)
        readings.append(sum_cpu_seconds(processes))
        at_end()

    load = Load(
        "127.0.0.1",
        system.port,
        system.key,
        clients,
        seconds,
        stream,
        headers=system.headers,
        is_traced=stream,
        certificate=system.certificate,
    )
    thread = threading.Thread(target=read_cpu)
    thread.start()
    result = asyncio.run(run_load(load))
    thread.join()
    before, after = readings
    return LoadMeasurement(result, warm_up, {kind: after[kind] - before.get(kind, 0.0) for kind in after})
