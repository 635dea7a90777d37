"""`./farm` as an operator runs it, in a data dir of its own."""

import subprocess
import sys
from pathlib import Path

import psutil

from launcher.processes.data_dir import DataDir
from tests.environment import ROOT, clean_environment, free_port
from tests.unread_pipe import open_unread_pipe

FARM = [sys.executable, "-m", "launcher"]


def build_environment(data: Path, **settings: str) -> dict[str, str]:
    return clean_environment(FARM_DATA_DIR=str(data), **({"PORT": str(free_port())} | settings))


def run_command(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*FARM, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)


def run_unread(env: dict[str, str], *arguments: str) -> int:
    """Runs a command whose output has no reader any more, as `| head -1` ends; returns the exit code."""
    with open_unread_pipe() as write_end:
        return subprocess.run([*FARM, *arguments], env=env, cwd=ROOT, stdout=write_end, stderr=write_end).returncode


def run_closed(env: dict[str, str], *arguments: str) -> int:
    """Runs a command without standard streams; returns the exit code."""
    shell = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    return subprocess.run([*shell, *FARM, *arguments], env=env, cwd=ROOT).returncode


def find_processes(data: Path) -> list[psutil.Process]:
    """Returns the processes that have this data dir in their environment."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FARM_DATA_DIR") == str(data) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def assert_start_fails(env: dict[str, str], data: Path, *expected: str) -> None:
    """Asserts that `up` reports the error in one line, exits with code 1 and leaves nothing running."""
    for arguments in (("up",), ("up", "--detach")):
        result = run_command(env, *arguments)
        assert result.returncode == 1, result.stdout
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert result.stderr.startswith("farm: ")
        assert [text for text in expected if text not in result.stderr] == []
        assert find_processes(data) == []
        assert not DataDir(str(data)).is_locked()
