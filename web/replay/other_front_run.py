"""Feeds a run from that of another front."""

import time

import gevent
from redis.exceptions import RedisError

from shared import clock
from shared.errors import ApiError
from shared.protocol.messages import RelayRequest
from web.replay import run_export
from web.replay.answers.answer_store import AnswerStore, OtherRun
from web.replay.run_export import RunExchange
from web.replay.shared_run import SharedRun
from web.request.pending import CLIENT_GONE, WORKER_MARGIN_SECONDS

#: Seconds between two tries while Redis is away.
RETRY_SECONDS = 0.5
#: What callers are told whose answer breaks off with the front that ran it.
RUN_LOST = ApiError(502, "run_lost", "the front that ran the request has died", "server_error")
TOTAL_TIMEOUT = ApiError(504, "total_timeout", "the request exceeded its total timeout", "server_error")


class OtherFrontRun:
    """One run of another front, as a source."""

    def __init__(self, store: AnswerStore, exchange: RunExchange, run: SharedRun, other: OtherRun) -> None:
        self._store = store
        self._exchange = exchange
        self._run = run
        self._other = other
        self._reader = exchange.open_reader(other.id, other.share.name, other.share.key)
        self._has_begun = self._is_unwanted = False
        #: When it was last asked for, by the monotonic clock.
        self._asked_at = float("-inf")
        run.attach_source(self._stop)

    def _stop(self) -> None:
        """Nobody here wants the answer any more."""
        self._is_unwanted = True
        self._reader.woken.set()

    def follow(self, request: RelayRequest) -> bool:
        """Feeds the run until it ends; returns True if the other one was lost before its first byte. Raises RedisError.

        `request` tells until when its callers wait.
        """
        try:
            while not self._run.has_ended:
                if self._is_unwanted:
                    self._run.fail(CLIENT_GONE)
                elif clock.now() > request.deadline + WORKER_MARGIN_SECONDS:
                    self._run.fail(TOTAL_TIMEOUT)
                elif self._is_lost():
                    if not self._has_begun:
                        return True
                    self._run.fail(RUN_LOST)
            return False
        finally:
            self._exchange.close_reader(self._reader, self._other.front)

    def _is_lost(self) -> bool:
        """Takes what there is, and waits for more if that is nothing; whether there will be none."""
        try:
            is_running = self._renew()
            # A run is released when all of it is exported, so that this is read first.
            if self._take():
                return False
            if is_running:
                self._reader.wait()
            return not is_running
        except RedisError:
            gevent.sleep(RETRY_SECONDS)
            return False
        except ValueError:
            self._has_begun = True
            return True

    def _renew(self) -> bool:
        """Asks for the run again when it is time, however much there is to read; False if it has ended."""
        now = time.monotonic()
        if now - self._asked_at < run_export.POLL_SECONDS:
            return True
        self._exchange.ask(self._other.id, self._other.front, self._other.share.name)
        self._asked_at = now
        return self._store.is_running(self._other)

    def _take(self) -> bool:
        frames = self._reader.read()
        if not frames:
            return False
        self._has_begun = True
        self._run.put(frames)
        self._run.wait_for_readers()
        return True
