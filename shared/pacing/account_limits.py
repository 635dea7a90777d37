"""Limits of one account at its upstream. No I/O."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from shared.parsing import parse_json_object
from shared.settings.schema import PoolSettings

#: What the name of a limit's setting begins with.
PREFIX = "account_"
#: Reason of a rest by one of these limits; the limit's setting stands behind `: `.
LIMIT_REACHED = "limit_reached"
#: The limits by the names of their settings, and bounds of an account's own: those of whole numbers, and of seconds.
LIMIT_NAMES = ("account_rpm", "account_tpm", "account_rpd", "account_gap")
MAX_COUNT, MAX_GAP_SECONDS = 10**12, 1e6


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


@dataclass(frozen=True)
class OwnLimits:
    """Limits of a single account, which replace its pool's: None leaves it to the pool, 0 stands for no limit."""

    account_rpm: int | None = None
    account_tpm: int | None = None
    account_rpd: int | None = None
    account_gap: float | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "OwnLimits":
        """From a record of an export or of Redis; leaves out what is no limit."""
        return cls(**{name: values[name] for name in LIMIT_NAMES if is_limit(name, values.get(name))})

    @classmethod
    def decode(cls, stored: str) -> "OwnLimits":
        """As set_limits.lua stores them; '' for none."""
        return cls.read(parse_json_object(stored.encode()) or {}) if stored else NO_OWN_LIMITS

    def to_dict(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: value for name in LIMIT_NAMES if (value := getattr(self, name)) is not None}

    def encode(self) -> str:
        """'' for none."""
        values = self.to_dict()
        return json.dumps(values, separators=(",", ":")) if values else ""

    def replace_in(self, limits: AccountLimits) -> AccountLimits:
        """The limits in force for an account of a pool that has `limits`."""
        return replace(limits, **{name.removeprefix(PREFIX): value for name, value in self.to_dict().items()})


NO_OWN_LIMITS = OwnLimits()


def is_limit(name: str, value: Any) -> bool:
    """Whether an account's own limit may have this value."""
    if name == "account_gap":
        return type(value) in (int, float) and 0 <= value <= MAX_GAP_SECONDS
    return type(value) is int and 0 <= value <= MAX_COUNT
