"""How much of their quotas API keys have used."""

from collections.abc import Iterable
from dataclasses import dataclass

from redis import Redis

from shared import clock, keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import quota_period


@dataclass(frozen=True)
class QuotaUse:
    """What a key has used in the present period."""

    tokens: int = 0
    requests: int = 0

    def share_of(self, key: ApiKey) -> float:
        """The used share of its quota of tokens or requests, whichever is more; 0 without one."""
        pairs = ((self.tokens, key.quota_tokens), (self.requests, key.quota_requests))
        return max((used / quota for used, quota in pairs if quota), default=0.0)


def read_quota_use(redis: Redis, api_keys: Iterable[ApiKey]) -> dict[str, QuotaUse]:
    """API key id -> what it has used, of the keys that have a quota."""
    limited = [key for key in api_keys if key.quota_tokens or key.quota_requests]
    with redis.pipeline(transaction=False) as pipe:
        for key in limited:
            pipe.hmget(keys.quota(key.id), "period", "tokens", "requests")
        replies = pipe.execute() if limited else []
    used = {}
    for key, (period, tokens, requests) in zip(limited, replies, strict=True):
        is_present = (period or b"").decode() == quota_period(key, clock.now())
        used[key.id] = QuotaUse(int(tokens or 0), int(requests or 0)) if is_present else QuotaUse()
    return used
