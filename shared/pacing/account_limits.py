"""Limits of one account at its upstream. No I/O."""

from dataclasses import dataclass
from functools import cached_property

from shared.settings.schema import PoolSettings

#: What the name of a limit's setting begins with.
PREFIX = "account_"
#: Reason of a rest by one of these limits; the limit's setting stands behind `: `.
LIMIT_REACHED = "limit_reached"


@dataclass(frozen=True)
class AccountLimits:
    """What one account may use; 0 stands for no limit."""

    #: Requests, tokens per minute; requests per day.
    rpm: int = 0
    tpm: int = 0
    rpd: int = 0
    #: Seconds from the end of a request to the start of the next.
    gap: float = 0.0

    @classmethod
    def of_pool(cls, pool: PoolSettings) -> "AccountLimits":
        return cls(pool.account_rpm or 0, pool.account_tpm or 0, pool.account_rpd or 0, pool.account_gap or 0.0)

    @cached_property
    def encoded(self) -> str:
        """As pace.lua reads them; '' for no limit at all."""
        if not (self.rpm or self.tpm or self.rpd or self.gap):
            return ""
        return f"{self.rpm} {self.tpm} {self.rpd} {round(1000 * self.gap)}"
