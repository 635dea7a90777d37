"""The API key with which the console's playground asks.

It has no secret, so no caller can present it: it is filed under a word in place of a SHA-256. Operators limit or
disable it like every other key.
"""

from redis import Redis

from shared import clock, keys
from shared.api_keys.api_key import CONSOLE_KEY_ID, ApiKey
from shared.api_keys.store import ApiKeys

#: Requests at once, and those that may wait for it: an operator tries things out, one after the other.
CONCURRENCY, MAX_WAITING = 4, 20


def ensure_console_key(redis: Redis) -> ApiKey:
    """The key, created on first use. Raises NotFound when this version can't read its record."""
    if not redis.hexists(keys.API_KEY_IDS, CONSOLE_KEY_ID):
        key = ApiKey(
            id=CONSOLE_KEY_ID,
            name="console",
            note="Requests of the console's playground. It has no secret.",
            hint="",
            created_at=clock.now(),
            concurrency=CONCURRENCY,
            max_waiting=MAX_WAITING,
        )
        with redis.pipeline() as pipe:
            pipe.hsetnx(keys.API_KEYS, CONSOLE_KEY_ID, key.model_dump_json())
            pipe.hsetnx(keys.API_KEY_IDS, CONSOLE_KEY_ID, CONSOLE_KEY_ID)
            pipe.execute()
    return ApiKeys(redis).get(CONSOLE_KEY_ID)
