"""A test's handle on a running simulator."""

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from simulator.accounts import Accounts


@dataclass(frozen=True)
class Upstream:
    """A running simulator; `base` is its URL without a path."""

    base: str

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

    def accounts(self, **values: Any) -> None:
        self._control("accounts", values)

    def reset(self) -> None:
        """Resets faults, pace and counters."""
        self.faults()
        self.pace()
        self._control("reset", {})

    def _control(self, endpoint: str, values: dict[str, Any] | None = None) -> Any:
        data = None if values is None else json.dumps(values).encode()
        with urllib.request.urlopen(f"{self.base}/simulator/{endpoint}", data=data, timeout=5) as response:
            return json.load(response)


def first_refresh_tokens(count: int) -> list[str]:
    """The first refresh tokens of a simulator with the default seed."""
    return Accounts(count).first_refresh_tokens()
