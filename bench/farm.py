"""Starts a farm for one measurement, and reads what it says and what its processes cost; it sends no request."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

from bench.processes import cpu_seconds, memory
from bench.upstream import ROOT, Upstream, simulator
from launcher.processes import redis_server

KEY = "sk-bench-0123456789abcdef"
#: Part of a process's command line -> what it is called in results.
KINDS = {
    "web.gunicorn_conf": "front",
    "-m workers": "workers",
    "redis-server": "redis",
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
    upstream: Upstream
    environment: dict[str, str]
    redis: "OwnRedis"
    #: Seconds from the command to ready.
    start_seconds: float = 0.0
    _launcher: psutil.Process | None = None

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

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric, of those with that label."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(one.rpartition(" ")[2]) for one in lines if one.startswith(name) and label in one)

    def jobs_of_dead_fronts(self) -> int:
        """Jobs in Redis whose web process does not listen."""
        redis = self.redis.client
        found = Counter(
            front for key in redis.scan_iter("rq:job:*", count=1000) if (front := redis.hget(key, "farm_front"))
        )
        ids = [front.decode().rpartition(":")[2] for front in found]
        heard = redis.pubsub_numsub(*(f"farm:front:{one}" for one in ids)) if ids else []
        return sum(found[front] for front, (_, count) in zip(found, heard, strict=True) if not count)

    def log(self) -> str:
        """What the farm has logged."""
        return (Path(self.environment["FARM_DATA_DIR"]) / "farm.log").read_text()

    def below(self, module: str) -> list[psutil.Process]:
        """The processes below `python -m workers` or gunicorn's master, which do the work."""
        return list(self.master(module).children())

    def launcher(self) -> psutil.Process:
        """`./farm up`; looked up once, because the question takes half a second of a core from what is measured."""
        if self._launcher is None or not self._launcher.is_running():
            self._launcher = psutil.Process(int(self.status()["pid"]))
        return self._launcher

    def master(self, module: str) -> psutil.Process:
        """`python -m workers`, or gunicorn's master."""
        return next(one for one in self.launcher().children() if module in " ".join(one.cmdline()))

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Every process of the farm, with its kind."""
        launcher = self.launcher()
        for process in (launcher, *launcher.children(recursive=True), psutil.Process(self.redis.process.pid)):
            line = " ".join(process.cmdline())
            yield next((kind for part, kind in KINDS.items() if part in line), "other"), process

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far, by kind."""
        return cpu_seconds(self.processes())

    def memory(self) -> dict[str, float]:
        """Proportional set size in MB, by kind."""
        return memory(self.processes())

    def wait_for_workers(self, count: int, within: float = 60.0) -> None:
        """Returns when so many workers are there. Raises RuntimeError."""
        until = time.monotonic() + within
        while sum(self.status()["pools"][0]["workers"].values()) != count:
            if time.monotonic() > until:
                raise RuntimeError(f"not {count} workers after {within} s: {self.status()}")
            time.sleep(0.2)


class OwnRedis:
    """A Redis that the measurement may kill, with the settings of the private one."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.process = redis_server.start(data)
        self.url = redis_server.build_url(data)
        self.client = Redis.from_url(self.url)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Starts it again on the same data."""
        self.process = redis_server.start(self._data)


@contextmanager
def farm(
    accounts: int, *arguments: str, prepare: Callable[["Bench"], None] | None = None, **settings: str
) -> Iterator[Bench]:
    """A farm of so many accounts and its simulator, started with these arguments; gone afterwards.

    `prepare` may spoil the simulator before the farm starts. An empty REDIS_URL makes the farm start its own Redis.
    """
    with simulator(accounts, *arguments) as upstream, farm_of(upstream, prepare, **settings) as bench:
        yield bench


@contextmanager
def farm_of(upstream: Upstream, prepare: Callable[["Bench"], None] | None = None, **settings: str) -> Iterator[Bench]:
    """A farm in front of that upstream, with every worker in place; gone afterwards."""
    data = Path(tempfile.mkdtemp(prefix="farm-bench-"))
    (data / "tokens").write_text("\n".join(upstream.refresh_tokens()))
    port = free_port()
    redis = OwnRedis(data / "store")
    environment = {
        **os.environ,
        "PORT": str(port),
        "REDIS_URL": redis.url,
        "FARM_DATA_DIR": str(data / "data"),
        "FARM_API_KEY": KEY,
        "FARM_UPSTREAM_URL": f"{upstream.url}/v1",
        "FARM_TOKEN_URL": f"{upstream.url}/oauth/token",
        "FARM_REFRESH_TOKENS_FILE": str(data / "tokens"),
        "FARM_LOG_LEVEL": "warning",
        **settings,
    }
    bench = Bench(port, upstream, environment, redis)
    try:
        if prepare:
            prepare(bench)
        began = time.perf_counter()
        bench.command("up", "--detach")
        bench.start_seconds = time.perf_counter() - began
        bench.wait_for_workers(upstream.accounts - upstream.counters().get("dead_accounts", 0))
        yield bench
    finally:
        bench.command("stop")
        redis.process.terminate()
        redis.process.wait()
        shutil.rmtree(data, ignore_errors=True)
