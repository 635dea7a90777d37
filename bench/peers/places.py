"""Where peers are installed and run: below .bench/, which is nobody else's, on loopback, ended with the measurement."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import psutil

from bench.compare.system import Running
from bench.farm import KEY
from bench.processes import Kinds
from bench.upstream import ROOT, Upstream

PLACE = ROOT / ".bench"
#: Seconds that a peer gets to be ready, and to end.
READY, END = 120.0, 30.0


def python_place(name: str, *packages: str) -> Path:
    """The bin folder of a virtual environment with these packages, made when missing. Raises CalledProcessError."""
    place = PLACE / name
    stamp = place / "packages"
    if not stamp.exists() or stamp.read_text() != " ".join(packages):
        print(f"farm: installing {name} below {PLACE} (this happens once)", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        quiet = ["install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([str(place / "bin" / "pip"), *quiet, *packages], check=True)
        stamp.write_text(" ".join(packages))
    return place / "bin"


def node_place(name: str, package_json: str) -> Path:
    """A folder with node_modules as package.json says, made when it is missing. Raises CalledProcessError."""
    place = PLACE / name
    stamp = place / "package.json"
    if not stamp.exists() or stamp.read_text() != package_json:
        print(f"farm: installing {name} below {PLACE} (this happens once)", file=sys.stderr, flush=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "package.json").write_text(package_json)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(npm, cwd=place, check=True)
    return place


def version_of(*command: str) -> str:
    """The first line that a program prints of its version; '' when it is not here."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for configurations and logs; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="farm-peer-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def process(
    command: Sequence[str], log: Path, ready: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[psutil.Process]:
    """A peer's process, once the URL answers. Raises RuntimeError with the end of its log when it does not."""
    with log.open("w") as output:
        started = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=cwd, env={**os.environ, **(environment or {})}
        )
    try:
        wait_until_ready(started, ready, log)
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        try:
            started.wait(END)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_until_ready(started: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Returns when the URL answers with 200."""
    until = time.monotonic() + READY
    while time.monotonic() < until and started.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError(f"{' '.join(map(str, started.args))} is not ready: {log.read_text()[-2000:]}")  # type: ignore[arg-type]


def serving(
    port: int,
    upstream: Upstream,
    began: float,
    processes: Sequence[psutil.Process],
    *,
    key: str = KEY,
    headers: dict[str, str] | None = None,
) -> Running:
    """A peer that is ready now, of these processes and what they have started."""

    def kinds() -> Kinds:
        for one in processes:
            yield "peer", one
            for child in one.children(recursive=True):
                yield "peer", child

    return Running(port, key, upstream, time.perf_counter() - began, kinds, headers or {})


#: Begins what ends with the measurement, and returns what is ready.
Start = Callable[[Upstream, Path, ExitStack], Running]


def started(start: Start) -> Callable[[Upstream], AbstractContextManager[Running]]:
    """A system's `start` made of a function that is given a folder, and a stack for what has to end."""

    @contextmanager
    def run(upstream: Upstream) -> Iterator[Running]:
        with scratch() as folder, ExitStack() as stack:
            yield start(upstream, folder, stack)

    return run
