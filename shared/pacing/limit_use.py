"""What accounts have left of the limits that the farm keeps to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from shared import keys
from shared.pacing.account_limits import AccountLimits, OwnLimits
from shared.pacing.scripts import PACE_LUA
from shared.redis_connection.client import register_script


@dataclass(frozen=True)
class LimitUse:
    """One limit of an account. Times are seconds since the epoch."""

    #: The name of its setting.
    name: str
    #: Requests, tokens; seconds of the gap.
    limit: float
    #: Whether it is the account's own, in place of its pool's.
    is_own: bool
    #: How much of it may still be used; None for the gap.
    remaining: float | None
    #: When the next request fits; 0 if one does now.
    next_at: float = 0.0
    #: When all of it is free again; 0 if it is now.
    reset_at: float = 0.0


def read_limit_use(
    redis: Redis, accounts: Sequence[tuple[str, AccountLimits, OwnLimits]]
) -> list[tuple[LimitUse, ...]]:
    """The limits in force of each account, given by id, its pool's limits and its own; () without any."""
    script = register_script(redis, PACE_LUA, Path(__file__).with_name("read_pace.lua"))
    in_force = [own.replace_in(limits).encoded for _, limits, own in accounts]
    if not any(in_force):
        return [()] * len(accounts)
    with redis.pipeline(transaction=False) as pipe:
        for (credential_id, _, _), encoded in zip(accounts, in_force, strict=True):
            if encoded:
                script(keys=[keys.pace(credential_id)], args=[encoded], client=pipe)
        replies = iter(pipe.execute())
    return [
        tuple(build_limit_use(row, own) for row in next(replies)) if encoded else ()
        for (_, _, own), encoded in zip(accounts, in_force, strict=True)
    ]


def build_limit_use(row: Sequence[bytes | int], own: OwnLimits) -> LimitUse:
    """From a row of read_pace.lua."""
    name, limit, used = bytes(row[0]).decode(), int(row[1]), int(row[2])
    is_own, (next_at, reset_at) = name in own.to_dict(), (int(at) / 1000 for at in row[3:])
    if name == "account_gap":
        return LimitUse(name, limit / 1000, is_own, None, next_at, reset_at)
    return LimitUse(name, limit, is_own, max(0, limit - used), next_at, reset_at)
