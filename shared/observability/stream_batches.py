"""Appends batches of entries to a stream, each once, also when a reply of Redis is lost."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from redis import Redis

from shared import keys
from shared.redis_connection.client import register_script

#: Milliseconds for which a repeated write of the same batch is recognised.
BATCH_MARK_TTL_MS = 600_000


class StreamBatches:
    """Writes to one stream."""

    def __init__(self, redis: Redis, stream: str) -> None:
        self._stream = stream
        self._script = register_script(redis, Path(__file__).with_name("write_log.lua"))

    def write(self, batch: str, entries: Iterable[tuple[str, int]]) -> None:
        """Appends encoded entries, each with how many it stands for, unless a batch of this name has been written."""
        args: list[Any] = [BATCH_MARK_TTL_MS]
        for entry in entries:
            args += entry
        self._script(keys=[self._stream, keys.log_batch_mark(batch)], args=args)
