"""Which fronts have ended: one that has died is marked as gone, one that has ended by itself is no longer listed."""

from collections.abc import Sequence

from redis import Redis

from shared import keys


def find_gone_fronts(redis: Redis, fronts: Sequence[str]) -> set[str]:
    """Those of the fronts that have ended. Raises RedisError."""
    with redis.pipeline(transaction=False) as pipe:
        for front in fronts:
            pipe.zscore(keys.FRONTS, front)
            pipe.exists(keys.front_gone(front))
        replies = pipe.execute()
    states = zip(fronts, replies[::2], replies[1::2], strict=True)
    return {front for front, heartbeat, is_gone in states if heartbeat is None or is_gone}
