"""Keeps the good answers of ended runs, as far as Redis is there."""

import logging
from collections.abc import Sequence
from functools import partial

from redis.exceptions import RedisError

from shared.protocol.messages import Frame
from shared.redis_connection.retry import retry_for
from web.replay.answers.answer_store import AnswerStore, Share
from web.replay.answers.good_answer import is_good_answer
from web.replay.shared_run import SharedRun

log = logging.getLogger("farm.web")


class AnswerKeeper:
    """Never fails: callers get their answers although none can be kept."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store

    def keep(self, run: SharedRun, path: str, *, only_keys: bool = False) -> None:
        """Keeps the answer of a run that has ended; `path` is that of the request, below /v1, without its query.

        `only_keys`: only for retries by idempotency key, as another front keeps it for all.
        """
        shares = [share for share in run.shares if share.ttl and (share.print or not only_keys)]
        if shares and run.is_whole and is_good_answer(path, run.frames):
            self.store(run.id, shares, run.frames)

    def store(self, run_id: str, shares: Sequence[Share], frames: Sequence[Frame]) -> None:
        try:
            for share in shares:
                retry_for(partial(self._store.keep, share, run_id, frames))
        except RedisError as error:
            log.warning("can't keep an answer: %s", error, extra={"action": "redis_lost"})
