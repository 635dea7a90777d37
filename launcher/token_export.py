"""Reads refresh tokens back out of the store, for exports; only who has the secret key can."""

from collections.abc import Iterable
from typing import Any

from redis import Redis

from shared import keys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer


class TokenReader:
    """Opens what the vault sealed."""

    def __init__(self, redis: Redis, opener: Unsealer) -> None:
        self._redis = redis
        self._opener = opener

    def all(self, pools: Iterable[str]) -> list[dict[str, Any]]:
        """Every credential of the pools with its token. Raises WrongSecretKey."""
        found = []
        for one in Credentials(self._redis).list(pools):
            sealed = self._redis.hget(keys.credential(one.id), "sealed")
            if sealed:
                token = self._opener.unseal(sealed, one.id)
                facts = {"id": one.id, "pool": one.pool, "label": one.label}
                found.append({**facts, "state": one.state, "reason": one.reason, "refresh_token": token})
        return found
