"""Starts simulators, and controls running ones."""

import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from simulator.accounts import Accounts
from tests.environment import ROOT


@dataclass(frozen=True)
class Upstream:
    """A running simulator; `base` is its URL without a path, `certificate` the file to trust when it serves HTTPS."""

    base: str
    certificate: str = ""

    @property
    def url(self) -> str:
        return f"{self.base}/v1"

    @property
    def token_url(self) -> str:
        return f"{self.base}/oauth/token"

    def counters(self) -> dict[str, int]:
        return self._control("counters")

    def pace(self, **values: Any) -> None:
        self._control("pace", values)

    def faults(self, **values: Any) -> None:
        self._control("faults", values)

    def allowances(self, **values: Any) -> None:
        self._control("allowances", values)

    def accounts(self, **values: Any) -> None:
        self._control("accounts", values)

    def token_rules(self, **values: Any) -> None:
        self._control("token-rules", values)

    def received(self) -> list[dict[str, str]]:
        """The latest requests to the API and the token endpoints, as they came, since this was first called."""
        return list(self._control("received"))

    def restart(self) -> None:
        """Makes it as it was when its process began, accounts and their tokens included."""
        self._control("restart", {})

    def reset(self) -> None:
        """Resets faults, pace, allowances and counters."""
        self.faults()
        self.pace()
        self.token_rules()
        self.allowances()
        self._control("reset", {})

    def sign_ins(self, **values: Any) -> None:
        self._control("sign-ins", values)

    def _control(self, endpoint: str, values: dict[str, Any] | None = None) -> Any:
        data = None if values is None else json.dumps(values).encode()
        tls = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        url = f"{self.base}/simulator/{endpoint}"
        with urllib.request.urlopen(url, data=data, timeout=5, context=tls) as response:
            return json.load(response)


def start_simulator(*arguments: str) -> tuple["subprocess.Popen[str]", Upstream]:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    base = process.stdout.readline().strip().rpartition(" ")[2]
    return process, Upstream(base, arguments[arguments.index("--https") + 1] if "--https" in arguments else "")


@contextmanager
def run_upstream(*arguments: str) -> Iterator[Upstream]:
    """Runs a simulator with these arguments."""
    process, upstream = start_simulator(*arguments)
    yield upstream
    process.terminate()
    process.wait()
    if process.stdout:
        process.stdout.close()


def first_refresh_tokens(count: int) -> list[str]:
    """The first refresh tokens of a simulator with the default seed."""
    return Accounts(count).first_refresh_tokens()
