"""Refuses requests that can't be served now, and tells their callers when to come back.

A working pool is expected to have a worker free within a minute, by the rate at which its queue drains. A pool that
rests as a whole has a known time before which nothing is served, be that hours away, and is told as it is.
"""

import math

from shared import clock
from shared.credentials.pool_rest import PoolRest
from shared.errors import ApiError
from web.request.capacity.availability import Availability
from web.request.capacity.drain_rate import DrainRate

#: Seconds of a `retry-after` beyond which OpenAI's SDKs ignore it and retry within seconds instead.
MAX_HEEDED_SECONDS = 60


class Overload:
    """What a front knows about the time that requests have to wait."""

    def __init__(self, availability: Availability, drain_rate: DrainRate) -> None:
        self._availability = availability
        self._drain_rate = drain_rate

    def check_rest(self, pool: str, gives_up_at: float, model: str = "") -> None:
        """Raises ApiError when the pool rests for longer than the request may wait (seconds since the epoch).

        429, or 502 when the upstream refuses the API keys of all its credentials. `model`: its name at the upstream,
        as in the other methods; a pool may rest as a whole for a model only.
        """
        rest = self._availability.find_rest(pool, model)
        if rest and rest.outlasts(gives_up_at):
            raise self.build_rest_error(pool, rest)

    def build_rest_error(self, pool: str, rest: PoolRest) -> ApiError:
        """The error for a request that the pool's rest outlasts; `queue_timeout`, as if it had waited."""
        if rest.is_refused:
            return refused_keys_error(self._drain_rate.retry_after(pool, 0, rest))
        seconds = math.ceil(rest.ends_at - clock.now())
        message = f"all accounts that can serve this request rest for {seconds} s, longer than it may wait"
        return overloaded_error("queue_timeout", message, self._drain_rate.retry_after(pool, 0, rest))

    def build_error(self, code: str, message: str, pool: str, waiting: int, model: str = "") -> ApiError:
        """The 429 for a request that finds, or leaves, so many others waiting; 502 for refused API keys."""
        rest = self._availability.find_rest(pool, model)
        if rest and rest.is_refused:
            return self.build_rest_error(pool, rest)
        return overloaded_error(code, message, self._drain_rate.retry_after(pool, waiting, rest))

    def expected_wait(self, pool: str, model: str = "") -> float:
        """Seconds that a request enqueued now would wait, 0 if unknown."""
        rest = self._availability.find_rest(pool, model)
        if rest is None:
            return self._drain_rate.expected_wait(pool)
        return rest.find_turn(self._drain_rate.count_waiting(pool)) - clock.now()

    def eta_ms(self, pool: str, ahead: int, rest: PoolRest | None) -> int:
        """Milliseconds until a request with so many others ahead is expected to start, 0 if unknown."""
        if rest is None:
            return self._drain_rate.eta_ms(pool, ahead)
        return max(0, round(1000 * (rest.find_turn(ahead) - clock.now())))


def refused_keys_error(retry_after: int) -> ApiError:
    message = "the upstream refuses the API keys of all accounts that can serve this request"
    headers = {"retry-after": str(retry_after)}
    return ApiError(502, "upstream_auth_failed", message, "upstream_error", headers=headers)


def overloaded_error(code: str, message: str, retry_after: int) -> ApiError:
    """Builds a 429 with the time to wait: PDF translators retry a 429 a hundred times, and a 503 not at all."""
    headers = {"retry-after": str(retry_after)}
    if retry_after > MAX_HEEDED_SECONDS:
        headers["x-should-retry"] = "false"
    return ApiError(429, code, message, "rate_limit_error", headers=headers)
