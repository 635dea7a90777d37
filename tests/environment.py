"""What a test needs to start processes of the farm: the repository's root, a free port, a clean environment."""

import os
import shutil
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(**settings: str) -> dict[str, str]:
    """A new user's environment with these settings; what measures coverage in child processes is kept."""
    kept = {
        name: os.environ[name]
        for name in ("HOME", "PATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
        if name in os.environ
    }
    return {**kept, **settings}


def require_program(name: str) -> str:
    """Path of a program. Where there is none, the test is skipped, or fails in CI, which installs them all."""
    program = shutil.which(name)
    if program is None:
        message = f"{name} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return program
