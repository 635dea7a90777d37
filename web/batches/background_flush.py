"""Moves the results of a batch out of Redis while its lines go on."""

import logging
from typing import Any

import gevent
from gevent.event import Event
from gevent.greenlet import Greenlet
from redis.exceptions import RedisError

from shared.batches.batch import Batch
from shared.files.part_store import FileStoreDown
from web.batches.result_files import FLUSH_BYTES, ResultFiles

log = logging.getLogger("farm.batches")
#: Seconds before a flush is tried again that Redis or the store of files has refused.
PAUSE_SECONDS = 0.5


class BackgroundFlush:
    """One flush at a time, in a greenlet of its own."""

    def __init__(self, results: ResultFiles, stopped: Event) -> None:
        """`stopped` cuts the pause after a refusal short."""
        self._results = results
        self._stopped = stopped
        self._greenlet: Greenlet[..., Any] | None = None

    def start_if_due(self, batch: Batch) -> None:
        if batch.result_bytes >= FLUSH_BYTES and (self._greenlet is None or self._greenlet.dead):
            self._greenlet = gevent.spawn(self._try, batch)

    def join(self) -> None:
        if self._greenlet is not None:
            self._greenlet.join()

    def _try(self, batch: Batch) -> None:
        try:
            self._results.flush(batch)
        except (RedisError, FileStoreDown) as error:
            log.warning("results of a batch can't be stored yet: %s", error, extra={"action": "batch_store_down"})
            self._stopped.wait(PAUSE_SECONDS)
