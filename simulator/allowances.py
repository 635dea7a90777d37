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
    #: Whether each model has a window of its own; the only model that is limited, '' for all.
    per_model: bool = False
    model: str = ""
    #: Seconds that refusals name in a `retry-after`; 0 for none.
    retry_after: float = 0.0
    _windows: dict[tuple[int, str], Window] = field(default_factory=dict, repr=False)

    @property
    def depends_on_model(self) -> bool:
        return self.per_model or bool(self.model)

    def take(self, account: int, model: str = "") -> bool:
        """Counts a request of the account; False when it has none left, and the request must be refused."""
        if not self._is_limited(model):
            return True
        key = self._window_key(account, model)
        window = self._windows.get(key)
        if window is None or window.ends_at <= time.monotonic():
            window = self._windows[key] = Window(time.monotonic() + self.window)
        window.used += 1
        return window.used <= self.requests

    def _is_limited(self, model: str) -> bool:
        return bool(self.requests) and self.model in ("", model)

    def _window_key(self, account: int, model: str) -> tuple[int, str]:
        return account, model if self.per_model else ""

    def refusal_headers(self) -> str:
        """Header lines for a refusal."""
        return f"retry-after: {self.retry_after:g}\r\n" if self.retry_after else ""

    def headers(self, account: int, model: str = "") -> str:
        """Header lines for a response to the account, in OpenAI's form, each with its CRLF."""
        window = self._windows.get(self._window_key(account, model)) if self._is_limited(model) else None
        if not self.requests or not self.shown or window is None:
            return ""
        left = max(0, self.requests - window.used)
        seconds = max(0, math.ceil((window.ends_at - time.monotonic()) * 1000)) / 1000
        return (
            f"x-ratelimit-limit-requests: {self.requests}\r\nx-ratelimit-remaining-requests: {left}\r\n"
            f"x-ratelimit-reset-requests: {int(seconds // 60)}m{seconds % 60:.3f}s\r\n"
        )
