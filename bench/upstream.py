"""A simulator in a process of its own, and the tester's doors into it."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from simulator.accounts import Accounts

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Upstream:
    """A simulator that runs."""

    #: Its base, without /v1.
    url: str
    accounts: int
    process: "subprocess.Popen[str]"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def ask(self, door: str, values: dict[str, Any] | None = None) -> Any:
        """One of the doors for testers."""
        data = None if values is None else json.dumps(values).encode()
        with urllib.request.urlopen(f"{self.url}/simulator/{door}", data=data) as answer:
            return json.load(answer)

    def counters(self) -> dict[str, int]:
        """What it has counted."""
        found: dict[str, int] = self.ask("counters")
        return found

    def refresh_tokens(self) -> list[str]:
        """A refresh token of each account."""
        return Accounts(self.accounts).first_refresh_tokens()

    def access_tokens(self) -> list[str]:
        """An access token of each account, for those who can't refresh one."""
        return [self._access_token(one) for one in self.refresh_tokens()]

    def _access_token(self, refresh_token: str) -> str:
        data = f"grant_type=refresh_token&refresh_token={refresh_token}".encode()
        with urllib.request.urlopen(f"{self.url}/oauth/token", data=data) as answer:
            return str(json.load(answer)["access_token"])

    def cpu_seconds(self) -> float:
        """CPU time so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


@contextmanager
def simulator(accounts: int, *arguments: str) -> Iterator[Upstream]:
    """A simulator of so many accounts on a free port; gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--port", "0", "--accounts", str(accounts), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield Upstream(process.stdout.readline().strip().rpartition(" ")[2], accounts, process)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
