"""The tester's handle on a simulator: its counters, pace, faults and accounts."""

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from simulator.accounts import Accounts


@dataclass(frozen=True)
class Upstream:
    """A simulator that runs at `base`."""

    base: str

    @property
    def url(self) -> str:
        return f"{self.base}/v1"

    @property
    def token_url(self) -> str:
        return f"{self.base}/oauth/token"

    def counters(self) -> dict[str, int]:
        return self._ask("counters")

    def pace(self, **values: Any) -> None:
        self._ask("pace", values)

    def faults(self, **values: Any) -> None:
        self._ask("faults", values)

    def accounts(self, **values: Any) -> None:
        self._ask("accounts", values)

    def reset(self) -> None:
        """No faults, no delay, counters at 0."""
        self.faults()
        self.pace()
        self._ask("reset", {})

    def _ask(self, door: str, values: dict[str, Any] | None = None) -> Any:
        data = None if values is None else json.dumps(values).encode()
        with urllib.request.urlopen(f"{self.base}/simulator/{door}", data=data, timeout=5) as answer:
            return json.load(answer)


def tokens(count: int) -> list[str]:
    """The refresh tokens that a simulator with the usual seed takes first."""
    return Accounts(count).first_tokens()
