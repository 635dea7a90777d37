"""Receives the operators' operations for this worker process and runs each in a worker of its credential."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent.event import Event
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.credentials.activity.activity import ActivityStore
from shared.decoding import UnreadableRecord
from shared.protocol.credential_operations import RELAY, TEST_ALERTS, CredentialOperation, CredentialOperations
from workers.process.operation_runner import run_operation
from workers.process.worker_set import WorkerSet
from workers.sign_in.runner import OPERATIONS, SignInRunner
from workers.worker.direct_request import refuse_direct, run_direct
from workers.worker.rq_worker import FarmWorker

log = logging.getLogger("farm.process")
#: Seconds that one BLPOP waits.
POP_TIMEOUT_SECONDS = 5
#: Seconds to get hold of a worker for the credential.
CLAIM_TIMEOUT_SECONDS = 3.0
#: Seconds between two attempts to get or wake that worker.
WAKE_INTERVAL_SECONDS = 0.1


class OperationInbox:
    """The operations for one worker process."""

    def __init__(
        self,
        redis: Redis,
        process_id: str,
        workers: WorkerSet,
        sign_ins: SignInRunner,
        test_alerts: Callable[[], dict[str, Any]],
    ) -> None:
        self._redis = redis
        self._workers = workers
        self._sign_ins = sign_ins
        self._test_alerts = test_alerts
        self._inbox_key = keys.operations(process_id)
        self._operations = CredentialOperations(redis)
        self._activity = ActivityStore(redis)

    def run(self) -> None:
        """Runs forever."""
        while True:
            try:
                if popped := self._redis.blpop([self._inbox_key], timeout=POP_TIMEOUT_SECONDS):
                    gevent.spawn(self._dispatch, CredentialOperation.decode(popped[1]))
            except UnreadableRecord as error:
                log.error("an operation can't be read: %s", error, extra={"action": "errand_unreadable"})
            except RedisError as error:
                log.warning("cannot receive operations: %s", error, extra={"action": "redis_lost"})
                gevent.sleep(1)

    def _dispatch(self, operation: CredentialOperation) -> None:
        fields = {"action": "errand", "reason": operation.kind, "credential_id": operation.credential_id}
        log.info("an operator's operation", extra=fields)
        if operation.kind in OPERATIONS:
            self._operations.respond(operation, self._sign_ins.run_operation(operation))
            return
        if operation.kind == TEST_ALERTS:
            self._operations.respond(operation, self._test_alerts())
            return
        give_up_at = time.monotonic() + CLAIM_TIMEOUT_SECONDS
        while time.monotonic() < give_up_at:
            worker = self._workers.find_or_start_worker(operation.pool, operation.credential_id)
            if worker is not None and self._run_in(worker, operation):
                return
            gevent.sleep(WAKE_INTERVAL_SECONDS)
        reason = "another process has this credential now; try again"
        if operation.kind == RELAY:
            refuse_direct(self._redis, operation.request, reason)
        else:
            self._operations.respond(operation, {"ok": False, "error": reason})

    def _run_in(self, worker: FarmWorker, operation: CredentialOperation) -> bool:
        """Has the worker run the operation; False when the worker ended before it started."""
        started = Event()

        def run() -> None:
            started.set()
            if operation.kind == RELAY:
                run_direct(self._redis, worker.runner, operation.credential_id, operation.request)
                return
            result = run_operation(worker.runner, operation)
            if operation.kind == "test":
                with suppress(RedisError):
                    self._activity.keep_test(operation.credential_id, result)
            self._operations.respond(operation, result)

        worker.run_between_jobs(run)
        # Wake the worker repeatedly: it may be about to wait for a job, and miss the first call.
        while not started.wait(WAKE_INTERVAL_SECONDS) and not worker.has_ended:
            self._workers.wake_idle()
        return bool(started.is_set())
