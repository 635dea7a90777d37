"""Limits of requests per account, in fixed or sliding windows, and the headers that tell what is left. No I/O."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Arrival(NamedTuple):
    """A request that has met a limit."""

    account: int
    #: Seconds by the simulator's monotonic clock.
    at: float
    #: False when it was refused with 429.
    is_allowed: bool


class Window(Protocol):
    """What one account may still send; times are of the monotonic clock."""

    def take(self, requests: int, now: float) -> bool:
        """Counts a request, if it is allowed."""

    def count_left(self, requests: int, now: float) -> int:
        """Requests that are allowed now."""

    @property
    def ends_at(self) -> float:
        """When more is left than now."""


@dataclass
class FixedWindow:
    """Begins with a request, and is followed by one that begins with the next request after its end."""

    seconds: float
    ends_at: float = 0.0
    _used: int = 0

    def take(self, requests: int, now: float) -> bool:
        if self.ends_at <= now:
            self.ends_at, self._used = now + self.seconds, 0
        self._used += 1
        return self._used <= requests

    def count_left(self, requests: int, now: float) -> int:
        return max(0, requests - self._used)


@dataclass
class SlidingWindow:
    """The last so many seconds, whenever one looks: strictly, and counted from the arrival of each request."""

    seconds: float
    #: When the requests that count arrived, oldest first.
    _arrivals: deque[float] = field(default_factory=deque)

    def take(self, requests: int, now: float) -> bool:
        if not self.count_left(requests, now):
            return False
        self._arrivals.append(now)
        return True

    def count_left(self, requests: int, now: float) -> int:
        while self._arrivals and self._arrivals[0] + self.seconds <= now:
            self._arrivals.popleft()
        return max(0, requests - len(self._arrivals))

    @property
    def ends_at(self) -> float:
        return self._arrivals[0] + self.seconds if self._arrivals else 0.0


@dataclass
class Allowances:
    """How many requests each account may make in a window."""

    #: Requests in a window; 0 for no limit.
    requests: int = 0
    #: Seconds.
    window: float = 60.0
    #: Whether windows slide; else each begins with the account's first request.
    sliding: bool = False
    #: Whether responses tell what is left.
    shown: bool = True
    #: Whether each model has a window of its own; the only model that is limited, '' for all.
    per_model: bool = False
    model: str = ""
    #: Seconds that refusals name in a `retry-after`; 0 for none.
    retry_after: float = 0.0
    #: The latest requests that have met a limit.
    arrivals: deque[Arrival] = field(default_factory=lambda: deque(maxlen=100_000), repr=False)
    _windows: dict[tuple[int, str], Window] = field(default_factory=dict, repr=False)

    @property
    def depends_on_model(self) -> bool:
        return self.per_model or bool(self.model)

    def take(self, account: int, model: str = "") -> bool:
        """Counts a request of the account; False when it has none left, and the request must be refused."""
        if not self._is_limited(model):
            return True
        now = time.monotonic()
        kind = SlidingWindow if self.sliding else FixedWindow
        window = self._windows.setdefault(self._window_key(account, model), kind(self.window))
        is_allowed = window.take(self.requests, now)
        self.arrivals.append(Arrival(account, now, is_allowed))
        return is_allowed

    def _is_limited(self, model: str) -> bool:
        return bool(self.requests) and self.model in ("", model)

    def _window_key(self, account: int, model: str) -> tuple[int, str]:
        return account, model if self.per_model else ""

    def refusal_headers(self) -> str:
        """Header lines for a refusal."""
        return f"retry-after: {self.retry_after:g}\r\n" if self.retry_after else ""

    def headers(self, account: int, model: str = "") -> str:
        """Header lines for a response to the account that is sent now, in OpenAI's form, each with its CRLF."""
        window = self._windows.get(self._window_key(account, model)) if self._is_limited(model) else None
        if not self.requests or not self.shown or window is None:
            return ""
        now = time.monotonic()
        left = window.count_left(self.requests, now)
        seconds = max(0, math.ceil((window.ends_at - now) * 1000)) / 1000
        return (
            f"x-ratelimit-limit-requests: {self.requests}\r\nx-ratelimit-remaining-requests: {left}\r\n"
            f"x-ratelimit-reset-requests: {int(seconds // 60)}m{seconds % 60:.3f}s\r\n"
        )
