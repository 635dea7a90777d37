"""Takes the errands that operators leave for this worker process, and has each done by its credential's worker."""

import logging
import time

import gevent
from gevent.event import Event
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations
from workers.process.operation_runner import run_operation
from workers.process.worker_set import WorkerSet
from workers.worker.rq_worker import FarmWorker

log = logging.getLogger("farm.process")
#: Seconds that an idle look at the list takes.
POP_TIMEOUT_SECONDS = 5
#: Seconds within which somebody has to have the credential.
CLAIM_TIMEOUT_SECONDS = 3.0
#: Seconds between two calls for a worker that waits for a job.
WAKE_INTERVAL_SECONDS = 0.1


class OperationInbox:
    """One process's errands."""

    def __init__(self, redis: Redis, process_id: str, crew: WorkerSet) -> None:
        self._redis = redis
        self._crew = crew
        self._list = keys.operations(process_id)
        self._answers = CredentialOperations(redis)

    def run(self) -> None:
        """Runs for ever."""
        while True:
            try:
                if found := self._redis.blpop([self._list], timeout=POP_TIMEOUT_SECONDS):
                    gevent.spawn(self._dispatch, CredentialOperation.decode(found[1]))
            except (RedisError, OSError) as error:
                log.warning("no errands: %s", error, extra={"action": "redis_lost"})
                gevent.sleep(1)

    def _dispatch(self, errand: CredentialOperation) -> None:
        fields = {"action": "errand", "reason": errand.kind, "credential_id": errand.credential_id}
        log.info("an operator's errand", extra=fields)
        until = time.monotonic() + CLAIM_TIMEOUT_SECONDS
        while time.monotonic() < until:
            worker = self._crew.find_or_start_worker(errand.pool, errand.credential_id)
            if worker is not None and self._run_in(worker, errand):
                return
            gevent.sleep(WAKE_INTERVAL_SECONDS)
        self._answers.respond(errand, {"ok": False, "error": "another process has this credential now; try again"})

    def _run_in(self, worker: FarmWorker, errand: CredentialOperation) -> bool:
        """Has the worker do it; False when it has ended instead."""
        begun = Event()

        def work() -> None:
            begun.set()
            self._answers.respond(errand, run_operation(worker.runner, errand))

        worker.run_between_jobs(work)
        # It may be about to wait for a job, and be called back too early.
        while not begun.wait(WAKE_INTERVAL_SECONDS) and not worker.has_ended:
            self._crew.wake_idle()
        return bool(begun.is_set())
