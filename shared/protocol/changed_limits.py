"""Applies changed limits of an API key to the requests that wait for them already."""

from redis import Redis
from rq.job import Job

from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import encode_limits
from shared.protocol.relay_queue import RELEASE_HELD_LUA, SCHEDULING_LUA
from shared.redis_connection.client import register_script


def apply_limits(redis: Redis, key: ApiKey) -> None:
    """Held requests go on at once if the key's limits have been raised or removed. Idempotent."""
    release_held = register_script(redis, *SCHEDULING_LUA, RELEASE_HELD_LUA)
    release_held(keys=[], args=[key.id, "", encode_limits(key), Job.key_for(""), ""])
