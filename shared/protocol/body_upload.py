"""Stores a large body in Redis piece by piece, so that Redis serves others in between."""

from collections import deque
from pathlib import Path

import gevent
from redis.exceptions import RedisError

from shared.protocol.large_body import LargeBody
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.multiplexer import Batch

#: Pieces that may await their replies at a time, so that a distant Redis costs few round trips.
MAX_IN_FLIGHT = 4
#: Milliseconds after which an upload is deleted that no request has taken over.
UPLOAD_TTL = 300_000


class BodyUpload:
    """Uploads bodies; enqueue.lua makes an upload the body of its request."""

    def __init__(self, pipeline: AutoPipeline) -> None:
        self._pipeline = pipeline
        self._store_piece = pipeline.register_script(Path(__file__).with_name("upload.lua"))

    def store(self, key: str, body: LargeBody) -> None:
        """Stores the body under this Redis key. Raises RedisError; can be tried again then."""
        stored = 0
        waiting: deque[tuple[Batch, int]] = deque()
        for piece in body.iter_pieces():
            batch = self._store_piece.submit([key], [stored, UPLOAD_TTL, piece])
            stored += len(piece)
            waiting.append((batch, stored))
            # Where Redis reads at once, nothing else lets the event loop turn.
            gevent.sleep(0)
            # The first one may have to be sent again, once the script is loaded.
            if len(waiting) == MAX_IN_FLIGHT or stored == len(piece):
                self._confirm(*waiting.popleft())
        for batch, expected in waiting:
            self._confirm(batch, expected)

    def _confirm(self, batch: Batch, expected: int) -> None:
        (length,) = self._pipeline.wait_for(batch)
        if isinstance(length, Exception):
            raise length
        if length < expected:
            raise RedisError("a piece of a body was lost")
