"""A simulator in its own process, and its control endpoints."""

import json
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.accounts import Accounts

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class SimulatorProcess:
    """A running simulator."""

    #: Base URL, without /v1.
    url: str
    #: Number of accounts.
    accounts: int
    process: "subprocess.Popen[str]"
    #: The file to trust when it serves HTTPS.
    certificate: str = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def control(self, endpoint: str, values: dict[str, Any] | None = None) -> Any:
        """Reads a control endpoint, or posts values to it; returns the JSON response."""
        data = None if values is None else json.dumps(values).encode()
        with urllib.request.urlopen(f"{self.url}/simulator/{endpoint}", data=data, context=self._tls()) as response:
            return json.load(response)

    def _tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.certificate) if self.certificate else None

    def read_counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.control("counters")
        return counters

    def refresh_tokens(self) -> list[str]:
        """The first refresh token of each account."""
        return Accounts(self.accounts).first_refresh_tokens()

    def fetch_access_tokens(self) -> list[str]:
        """An access token of each account, for systems that cannot refresh tokens."""
        return [self._fetch_access_token(token) for token in self.refresh_tokens()]

    def _fetch_access_token(self, refresh_token: str) -> str:
        data = f"grant_type=refresh_token&refresh_token={refresh_token}".encode()
        with urllib.request.urlopen(f"{self.url}/oauth/token", data=data, context=self._tls()) as response:
            return str(json.load(response)["access_token"])


@contextmanager
def run_simulator(accounts: int, *arguments: str) -> Iterator[SimulatorProcess]:
    """Runs a simulator on a free port, and terminates it on exit. `--https` is completed with a temporary file."""
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as folder:
        certificate = str(Path(folder) / "certificate.pem") if "--https" in arguments else ""
        completed = (part for name in arguments for part in ((name, certificate) if name == "--https" else (name,)))
        with start_simulator(accounts, *completed) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip().rpartition(" ")[2]
            yield SimulatorProcess(url, accounts, process, certificate)


@contextmanager
def start_simulator(accounts: int, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--port", "0", "--accounts", str(accounts), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
