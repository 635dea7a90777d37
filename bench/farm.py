"""Starts a simulator and a farm for one measurement, and reads what their processes cost; it sends no request."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from simulator.accounts import Accounts

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-bench-0123456789abcdef"
#: Part of a process's command line -> what it is called in results.
KINDS = {
    "web.gunicorn_conf": "front",
    "-m workers": "workers",
    "redis-server": "redis",
    "simulator": "simulator",
    "-m launcher": "launcher",
}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Bench:
    """A farm with its simulator, for as long as it is measured."""

    port: int
    upstream: str
    environment: dict[str, str]
    simulator: "subprocess.Popen[str]"
    #: Seconds from the command to ready.
    start_seconds: float = 0.0

    def command(self, *arguments: str) -> str:
        """`./farm …`; raises when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What the farm says of itself."""
        found: dict[str, Any] = json.loads(self.command("status", "--json"))
        return found

    def counters(self) -> dict[str, int]:
        """The simulator's counters."""
        with urllib.request.urlopen(f"{self.upstream}/simulator/counters") as answer:
            found: dict[str, int] = json.load(answer)
        return found

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Every process of the farm, and the simulator, with its kind."""
        launcher = psutil.Process(int(self.status()["pid"]))
        for process in (launcher, *launcher.children(recursive=True), psutil.Process(self.simulator.pid)):
            line = " ".join(process.cmdline())
            yield next((kind for part, kind in KINDS.items() if part in line), "other"), process

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far, by kind."""
        found: defaultdict[str, float] = defaultdict(float)
        for kind, process in self.processes():
            times = process.cpu_times()
            found[kind] += times.user + times.system
        return found

    def memory(self) -> dict[str, float]:
        """Proportional set size in MB, by kind; shared pages count once."""
        found: defaultdict[str, float] = defaultdict(float)
        for kind, process in self.processes():
            found[kind] += process.memory_full_info().pss / 2**20
        return found

    def wait_for_workers(self, count: int, within: float = 60.0) -> None:
        """Returns when so many workers are there. Raises RuntimeError."""
        until = time.monotonic() + within
        while sum(self.status()["pools"][0]["workers"].values()) != count:
            if time.monotonic() > until:
                raise RuntimeError(f"not {count} workers after {within} s: {self.status()}")
            time.sleep(0.2)


@contextmanager
def farm(accounts: int, *simulator: str, **settings: str) -> Iterator[Bench]:
    """A farm of so many accounts, with every worker in place; gone afterwards."""
    data = Path(tempfile.mkdtemp(prefix="farm-bench-"))
    (data / "tokens").write_text("\n".join(Accounts(accounts).first_tokens()))
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--port", "0", "--accounts", str(accounts), *simulator],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    upstream = process.stdout.readline().strip().rpartition(" ")[2]
    port = free_port()
    environment = {
        **os.environ,
        "PORT": str(port),
        "FARM_DATA_DIR": str(data / "data"),
        "FARM_API_KEY": KEY,
        "FARM_UPSTREAM_URL": f"{upstream}/v1",
        "FARM_TOKEN_URL": f"{upstream}/oauth/token",
        "FARM_REFRESH_TOKENS_FILE": str(data / "tokens"),
        "FARM_LOG_LEVEL": "warning",
        **settings,
    }
    bench = Bench(port, upstream, environment, process)
    try:
        began = time.perf_counter()
        bench.command("up", "--detach")
        bench.start_seconds = time.perf_counter() - began
        bench.wait_for_workers(accounts)
        yield bench
    finally:
        bench.command("stop")
        process.terminate()
        process.wait()
        shutil.rmtree(data, ignore_errors=True)
