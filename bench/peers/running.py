"""Runs a peer's process on loopback until the measurement ends."""

import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import psutil

from bench.compare.system import RunningSystem
from bench.farm import API_KEY
from bench.processes import LabelledProcesses
from bench.simulator import SimulatorProcess

READY_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 30.0

#: Starts a peer with a scratch folder and a stack for its cleanup; returns once the peer is ready.
StartPeer = Callable[[SimulatorProcess, Path, ExitStack], RunningSystem]


@contextmanager
def create_scratch_folder() -> Iterator[Path]:
    """A temporary folder for configuration and logs."""
    folder = Path(tempfile.mkdtemp(prefix="farm-peer-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def run_process(
    command: Sequence[str],
    log: Path,
    ready_url: str,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """Runs a process, once the URL responds. Raises RuntimeError with the end of its log when it does not."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=cwd, env={**os.environ, **(environment or {})}
        )
    try:
        wait_until_ready(process, ready_url, log)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Waits until the URL responds with a 2xx. Raises RuntimeError when the process exits or the timeout passes."""
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError(f"{' '.join(map(str, process.args))} is not ready: {log.read_text()[-2000:]}")  # type: ignore[arg-type]


def describe_peer(
    port: int,
    upstream: SimulatorProcess,
    started: float,
    process: psutil.Process,
    *,
    key: str = API_KEY,
    headers: dict[str, str] | None = None,
) -> RunningSystem:
    """A peer that became ready now; `started` is the time of its command, by time.perf_counter."""

    def list_processes() -> LabelledProcesses:
        yield "peer", process
        for child in process.children(recursive=True):
            yield "peer", child

    return RunningSystem(port, key, upstream, time.perf_counter() - started, list_processes, headers or {})


def as_context_manager(start: StartPeer) -> Callable[[SimulatorProcess], AbstractContextManager[RunningSystem]]:
    """Turns a peer's start function into the `start` of a System."""

    @contextmanager
    def run(upstream: SimulatorProcess) -> Iterator[RunningSystem]:
        with create_scratch_folder() as folder, ExitStack() as stack:
            yield start(upstream, folder, stack)

    return run
