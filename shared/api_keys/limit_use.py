"""What API keys use of their limits at this moment, as shared/protocol/limits.lua keeps it; changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from redis import Redis

from shared import clock, keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import quota_period

#: Seconds of the window of the limits per minute.
WINDOW_SECONDS = 60
QUOTA_FIELDS = ("period", "tokens", "requests", "reserved")


@dataclass(frozen=True)
class LimitUse:
    """One limit of a key."""

    #: As in the key's record: `concurrency`, `rpm`, `tpm`, `quota_tokens`, `quota_requests`.
    name: str
    used: int
    limit: int
    #: Tokens that unfinished requests have reserved beside those used.
    reserved: int = 0
    #: When a quota begins anew, in seconds since the epoch; 0 for never, and for other limits.
    resets_at: float = 0.0

    @property
    def share(self) -> float:
        return self.used / self.limit


@dataclass(frozen=True)
class KeyUse:
    """What a key uses of its limits."""

    limits: tuple[LimitUse, ...]
    #: Requests held by them, of `max_waiting`.
    held: int


def read_key_use(redis: Redis, key: ApiKey) -> KeyUse:
    now = clock.now()
    with redis.pipeline(transaction=False) as pipe:
        pipe.scard(keys.started_requests(key.id))
        pipe.lrange(keys.recent_requests(key.id), 0, -1)
        pipe.hgetall(keys.recent_tokens(key.id))
        pipe.hmget(keys.quota(key.id), QUOTA_FIELDS)
        pipe.smembers(keys.held_requests(key.id))
        started, times, tokens, quota, places = pipe.execute()
        for place in places:
            pipe.llen(f"{keys.held_requests(key.id)}:{place.decode()}")
        held = sum(pipe.execute())
    recent = sum(float(at) > now - WINDOW_SECONDS for at in times)
    recent_tokens = sum(int(count) for second, count in tokens.items() if int(second) > now - WINDOW_SECONDS - 1)
    used = {"concurrency": started, "rpm": recent, "tpm": recent_tokens}
    limits = (LimitUse(name, count, getattr(key, name)) for name, count in used.items() if getattr(key, name))
    return KeyUse((*limits, *build_quotas(key, quota, now)), held)


def build_quotas(key: ApiKey, fields: Sequence[Any], now: float) -> list[LimitUse]:
    """The use of a key's quotas. `fields` are those of QUOTA_FIELDS; another period has used nothing of this one."""
    period, tokens, requests, reserved = fields
    is_current = period is not None and period.decode() == quota_period(key, now)
    used = {"quota_tokens": int(tokens or 0), "quota_requests": int(requests or 0)} if is_current else {}
    resets_at = find_reset(key, now)
    return [
        LimitUse(name, used.get(name, 0), limit, int(reserved or 0) if name == "quota_tokens" else 0, resets_at)
        for name in ("quota_tokens", "quota_requests")
        if (limit := getattr(key, name))
    ]


def read_quota_shares(redis: Redis, api_keys: Sequence[ApiKey]) -> dict[str, float]:
    """Id of each key with a quota -> the share that it has used of the one that is nearer to its end."""
    with_quota = [key for key in api_keys if key.quota_tokens or key.quota_requests]
    with redis.pipeline(transaction=False) as pipe:
        for key in with_quota:
            pipe.hmget(keys.quota(key.id), QUOTA_FIELDS)
        replies = pipe.execute()
    now = clock.now()
    return {
        key.id: max(use.share for use in build_quotas(key, fields, now))
        for key, fields in zip(with_quota, replies, strict=True)
    }


def find_reset(key: ApiKey, now: float) -> float:
    """When the key's next quota period begins, by its time zone; 0 for never."""
    if key.quota_reset == "never":
        return 0.0
    today = datetime.fromtimestamp(now, ZoneInfo(key.quota_zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    starts = {
        "daily": today + timedelta(days=1),
        "weekly": today + timedelta(days=7 - today.weekday()),
        "monthly": (today.replace(day=1) + timedelta(days=32)).replace(day=1),
    }
    return starts[key.quota_reset].timestamp()
