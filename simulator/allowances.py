"""Limits of requests per account in fixed windows, and the headers that tell what is left. No I/O."""

import math
import time
from dataclasses import dataclass, field


@dataclass
class Window:
    """The present window of one account."""

    ends_at: float
    used: int = 0


@dataclass
class Allowances:
    """How many requests each account may make in a window, which begins with its first request."""

    #: Requests in a window; 0 for no limit.
    requests: int = 0
    #: Seconds.
    window: float = 60.0
    #: Whether responses tell what is left.
    shown: bool = True
    _windows: dict[int, Window] = field(default_factory=dict, repr=False)

    def take(self, account: int) -> bool:
        """Counts a request of the account; False when it has none left, and the request must be refused."""
        if not self.requests:
            return True
        window = self._windows.get(account)
        if window is None or window.ends_at <= time.monotonic():
            window = self._windows[account] = Window(time.monotonic() + self.window)
        window.used += 1
        return window.used <= self.requests

    def headers(self, account: int) -> str:
        """Header lines for a response to the account, in OpenAI's form, each with its CRLF."""
        window = self._windows.get(account)
        if not self.requests or not self.shown or window is None:
            return ""
        left = max(0, self.requests - window.used)
        seconds = max(0, math.ceil((window.ends_at - time.monotonic()) * 1000)) / 1000
        return (
            f"x-ratelimit-limit-requests: {self.requests}\r\nx-ratelimit-remaining-requests: {left}\r\n"
            f"x-ratelimit-reset-requests: {int(seconds // 60)}m{seconds % 60:.3f}s\r\n"
        )
