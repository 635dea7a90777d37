"""Takes the errands that operators leave for this worker process, and has each done by its credential's worker."""

import logging
import time

import gevent
from gevent.event import Event
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.protocol.credential_operations import Errand, Errands
from workers.process.operation_runner import carry_out
from workers.process.worker_set import Crew
from workers.worker.rq_worker import FarmWorker

log = logging.getLogger("farm.process")
#: Seconds that an idle look at the list takes.
TURN = 5
#: Seconds within which somebody has to have the credential.
PATIENCE = 3.0
#: Seconds between two calls for a worker that waits for a job.
CALL_EVERY = 0.1


class ErrandDesk:
    """One process's errands."""

    def __init__(self, redis: Redis, process_id: str, crew: Crew) -> None:
        self._redis = redis
        self._crew = crew
        self._list = keys.errands(process_id)
        self._answers = Errands(redis)

    def run(self) -> None:
        """Runs for ever."""
        while True:
            try:
                if found := self._redis.blpop([self._list], timeout=TURN):
                    gevent.spawn(self._take, Errand.decode(found[1]))
            except (RedisError, OSError) as error:
                log.warning("no errands: %s", error, extra={"action": "redis_lost"})
                gevent.sleep(1)

    def _take(self, errand: Errand) -> None:
        fields = {"action": "errand", "reason": errand.kind, "credential_id": errand.credential_id}
        log.info("an operator's errand", extra=fields)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            worker = self._crew.for_errand(errand.pool, errand.credential_id)
            if worker is not None and self._is_done_by(worker, errand):
                return
            gevent.sleep(CALL_EVERY)
        self._answers.answer(errand, {"ok": False, "error": "another process has this credential now; try again"})

    def _is_done_by(self, worker: FarmWorker, errand: Errand) -> bool:
        """Has the worker do it; False when it has ended instead."""
        begun = Event()

        def work() -> None:
            begun.set()
            self._answers.answer(errand, carry_out(worker.serving, errand))

        worker.do(work)
        # It may be about to wait for a job, and be called back too early.
        while not begun.wait(CALL_EVERY) and not worker.has_left:
            self._crew.send_home()
        return bool(begun.is_set())
