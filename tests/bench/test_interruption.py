"""A benchmark that is told to end leaves nothing behind: no process, no network namespace."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cleanup import find_processes
from bench.hosts.network import find_obstacle
from bench.processes import read_command_line
from tests.environment import ROOT, clean_environment
from tests.waiting import eventually

NETWORK = """
import sys, time
from bench.cleanup import end_all_on_exit
from bench.hosts.network import run_network
with end_all_on_exit(), run_network("a", "b") as network:
    network.start("a", "sleep", "600", log=sys.stderr)
    print("ready", flush=True)
    time.sleep(600)
"""


def start(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True)


def is_farm_starting(run: int) -> bool:
    return any("web.gunicorn_conf" in read_command_line(process) for process in find_processes(run))


def test_processes_of_an_interrupted_benchmark_end():
    benchmark = start(sys.executable, "-m", "launcher", "bench", "faults", "--small", "--rows", "killed-host")
    eventually(lambda: is_farm_starting(benchmark.pid))
    benchmark.terminate()
    benchmark.communicate(timeout=120)
    assert benchmark.returncode == 128 + signal.SIGTERM
    assert find_processes(benchmark.pid) == []


@pytest.mark.skipif(find_obstacle() != "", reason=find_obstacle())
def test_namespaces_of_an_interrupted_benchmark_are_removed():
    benchmark = start(sys.executable, "-c", NETWORK)
    assert benchmark.stdout
    assert benchmark.stdout.readline() == "ready\n"
    pattern = f"farm-bench-{benchmark.pid}-*"
    assert len(list(Path("/run/netns").glob(pattern))) == 2
    benchmark.terminate()
    benchmark.communicate(timeout=120)
    assert list(Path("/run/netns").glob(pattern)) == []
    assert find_processes(benchmark.pid) == []
