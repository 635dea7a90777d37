"""One front over a filled Redis, which serves the console's pages."""

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.farm import KillableRedis, find_free_port
from bench.simulator import ROOT
from launcher.processes.network import is_up
from launcher.processes.up import build_environment

SCENARIO = "console"
ADMIN_TOKEN = "admin-token-of-the-measurement-of-pages"  # noqa: S105 (a farm that lives for a minute)
START_TIMEOUT_SECONDS = 30.0


@dataclass
class Front:
    """One front, without workers, over a filled Redis."""

    url: str
    process: psutil.Process
    redis: KillableRedis

    def load(self, path: str) -> bytes:
        """Raises RuntimeError for a status that is no success."""
        request = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {ADMIN_TOKEN}"})
        try:
            with urllib.request.urlopen(request) as response:
                body: bytes = response.read()
                return body
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read().decode()}") from None

    def measure_cpu(self) -> float:
        """Seconds of CPU time of the front so far."""
        return sum(self.process.cpu_times()[:2])

    def measure_redis_cpu(self) -> float:
        """Seconds of CPU time of Redis's main thread so far, which is all that serves commands."""
        usage = self.redis.client.info("cpu")
        return float(usage["used_cpu_user_main_thread"]) + float(usage["used_cpu_sys_main_thread"])


@contextmanager
def run_front(redis: KillableRedis, data: Path) -> Iterator[Front]:
    port = find_free_port()
    environment = {
        **build_environment(),
        "PORT": str(port),
        "REDIS_URL": redis.url,
        "FARM_DATA_DIR": str(data / "data"),
        "FARM_ADMIN_TOKEN": ADMIN_TOKEN,
        "FARM_UPSTREAM_URL": "http://127.0.0.1:9/v1",
        "FARM_TOKEN_URL": "http://127.0.0.1:9/token",
        "FARM_LOG_LEVEL": "warning",
        "WEB_CONCURRENCY": "1",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "python:web.gunicorn_conf"]
    master = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not is_up(f"http://127.0.0.1:{port}/healthz"):
            if time.monotonic() > deadline or master.poll() is not None:
                raise RuntimeError("the front does not start")
            time.sleep(0.1)
        (process,) = psutil.Process(master.pid).children()
        yield Front(f"http://127.0.0.1:{port}", process, redis)
    finally:
        master.terminate()
        master.wait()


def hide_id(path: str) -> str:
    """The path without the ids, which differ from run to run."""
    return re.sub(r"(req_)?[0-9a-f]{10,32}(?=$|[/&])", "ID", path.removeprefix("/admin")) or "/"
