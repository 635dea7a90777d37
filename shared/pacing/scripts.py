"""Scripts on the pace of accounts, beside those that begin and end jobs."""

from pathlib import Path

from redis import Redis

from shared.errors import AccountResting
from shared.redis_connection.client import register_script

#: Functions for scripts.
PACE_LUA = Path(__file__).with_name("pace.lua")


class CountRequest:
    """Counts one request of an account if its limits let it begin now."""

    def __init__(self, redis: Redis) -> None:
        self._script = register_script(redis, PACE_LUA, Path(__file__).with_name("count_request.lua"))

    def __call__(self, key: str, limits: str) -> AccountResting | None:
        """None when it is counted, else the rest that the account has to take. `key`: its pace. Raises RedisError."""
        reply = self._script(keys=[key], args=[limits])
        return AccountResting(float(reply[0]), reply[1].decode()) if reply else None
