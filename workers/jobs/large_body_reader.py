"""Reads a large body from Redis in pieces, so that neither Redis nor the worker process stands still for it."""

import gevent
from redis import Redis

#: Bytes of a piece: large enough that a distant Redis costs few round trips.
PIECE_BYTES = 1024 * 1024


def read_large_body(redis: Redis, key: str, size: int) -> bytearray | None:
    """The body of `size` bytes under this key; None if it is gone. Raises RedisError."""
    body = bytearray()
    while len(body) < size:
        piece = redis.getrange(key, len(body), len(body) + PIECE_BYTES - 1)
        if not piece:
            return None
        body += piece
        # Where Redis replies at once, nothing else lets the event loop turn.
        gevent.sleep(0)
    return body
