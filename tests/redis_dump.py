"""Everything that Redis holds, as text in which a test searches for secrets."""

from redis import Redis


def dump_redis(redis: Redis) -> str:
    """Every key and value of Redis."""
    readers = {
        "string": redis.get,
        "hash": redis.hgetall,
        "list": lambda key: redis.lrange(key, 0, -1),
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1),
        "stream": redis.xrange,
        # It has expired since the scan.
        "none": lambda _: "",
    }
    return " ".join(f"{key!r} {readers[redis.type(key).decode()](key)!r}" for key in redis.scan_iter())
