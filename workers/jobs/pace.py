"""The pace of an account within its limits, as the scripts of its jobs count it (shared/pacing/pace.lua)."""

import time
from dataclasses import dataclass

import gevent

from shared.errors import AccountResting
from shared.pacing.account_limits import AccountLimits
from shared.pacing.scripts import CountRequest

#: Limits, key, and how many seconds ago the job's request was sent.
PaceArgs = tuple[str, str, float]
#: What the scripts get for an account without limits.
NO_PACE: PaceArgs = ("", "", -1.0)
#: Longest rest in seconds within a job: a request that is sent once more waits for it.
MAX_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class AccountPace:
    """The pace of one leased credential with limits, shared by the workers of its slots."""

    limits: AccountLimits
    #: Where the scripts count (keys.pace).
    key: str
    count_request: CountRequest

    def build_args(self, sent_ago: float = -1.0) -> PaceArgs:
        """For a script that begins a job, or ends one whose request was sent so many seconds ago; negative: never."""
        return self.limits.encoded, self.key, sent_ago

    def count(self, *, is_repeat: bool) -> None:
        """Counts a request that no job has been begun for: one that is sent once more, or an operator's test.

        Waits for a short rest, as the gap after the request that it repeats. Raises AccountResting, RedisError.
        """
        waited_until = time.monotonic() + MAX_WAIT_SECONDS
        if is_repeat and (gap := self.limits.gap):
            if gap > MAX_WAIT_SECONDS:
                raise AccountResting(gap, "account_gap")
            gevent.sleep(gap)
        while rest := self.count_request(self.key, self.limits.encoded):
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
    def sent_ago(self) -> float:
        """Seconds since its request was sent; negative if it never was."""
        return time.monotonic() - self.sent_at if self.sent_at else -1.0


def find_pace_args(pace: JobPace | None) -> PaceArgs:
    """For a script that ends a job."""
    return pace.account.build_args(pace.sent_ago) if pace else NO_PACE
