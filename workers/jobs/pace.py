"""The pace of an account within its limits, as the scripts of its jobs count it (shared/pacing/pace.lua)."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent

from shared import keys
from shared.errors import AccountResting
from shared.pacing.account_limits import AccountLimits
from shared.pacing.scripts import CountRequest

#: What the scripts get for an account without limits: no limits, no key, nothing sent.
NO_PACE = ("", "", -1)
#: Longest rest in seconds within a job: a request that is sent once more waits for it.
MAX_WAIT_SECONDS = 2.0


class AccountPace:
    """The pace of one leased credential, shared by the workers of its slots."""

    def __init__(
        self, credential_id: str, find_limits: Callable[[], AccountLimits], count_request: CountRequest
    ) -> None:
        """`find_limits` returns the limits in force."""
        self._key = keys.pace(credential_id)
        self._find_limits = find_limits
        self._count_request = count_request

    @property
    def args(self) -> tuple[str, str, float]:
        """For a script that begins a job."""
        return self.build_args(-1.0)

    @property
    def has_limits(self) -> bool:
        return bool(self._find_limits().encoded)

    def build_args(self, sent_ago: float) -> tuple[str, str, float]:
        """For a script that ends a job, whose request was sent so many seconds ago; negative if it never was."""
        limits = self._find_limits().encoded
        return (limits, self._key, sent_ago) if limits else NO_PACE

    def count(self, *, is_repeat: bool) -> None:
        """Counts a request that no job has been begun for: one that is sent once more, or an operator's test.

        Waits for a short rest, as the gap after the request that it repeats. Raises AccountResting, RedisError.
        """
        waited_until = time.monotonic() + MAX_WAIT_SECONDS
        if is_repeat and (gap := self._find_limits().gap):
            if gap > MAX_WAIT_SECONDS:
                raise AccountResting(gap, "account_gap")
            gevent.sleep(gap)
        while limits := self._find_limits().encoded:
            rest = self._count_request(self._key, limits)
            if rest is None:
                return
            if time.monotonic() + rest.seconds > waited_until:
                raise rest
            gevent.sleep(rest.seconds)


@dataclass
class JobPace:
    """What one job uses of its account's limits."""

    account: AccountPace
    #: When its request was first sent, by the monotonic clock; 0 for never.
    sent_at: float = 0.0

    @property
    def args(self) -> tuple[str, str, float]:
        """For a script that ends the job."""
        return self.account.build_args(time.monotonic() - self.sent_at if self.sent_at else -1.0)


def find_pace_args(pace: JobPace | None) -> tuple[str, str, float]:
    return pace.args if pace else NO_PACE
