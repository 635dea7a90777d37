"""Finds what a worker that died left behind (I11): jobs popped but not begun, and jobs begun but never ended."""

import logging
from pathlib import Path
from typing import cast

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.worker import BaseWorker

from shared.messages import OUT_OF_BAND, Failure, Frame, FrameKind
from shared.redis_client import script
from workers.bookkeeping import BegunJob, decode_request

LUA = Path(__file__).parent / "lua"
log = logging.getLogger("farm.recovery")


class Intermediate:
    """Watches one queue's intermediate queue: what lies there at two looks in a row was popped by one who died."""

    def __init__(self, redis: Redis, queue: Queue) -> None:
        self._redis = redis
        self._queue = queue
        self._seen: set[str] = set()
        self._unstick = script(redis, LUA / "unstick.lua")

    def look(self) -> int:
        """Puts the stuck jobs back; returns how many."""
        found = {one.decode() for one in self._redis.lrange(self._queue.intermediate_queue_key, 0, -1)}
        stuck = found & self._seen
        self._seen = found - stuck
        names = (self._queue.intermediate_queue_key, self._queue.key)
        back = [self._unstick(keys=[*names, Job.key_for(job_id)], args=[job_id]) for job_id in stuck]
        for job_id in stuck:
            log.warning("job put back", extra={"action": "orphan_found", "request_id": job_id, "reason": "popped"})
        return sum(cast("list[int]", back))


def end_orphans(redis: Redis, worker: BaseWorker) -> list[BegunJob]:
    """Jobs that the last worker of this name began and never ended: their callers are told, and they are ended."""
    orphans = []
    for execution in worker.get_current_executions(refresh=True):
        raw = redis.hget(Job.key_for(execution.job_id), "data")
        request = decode_request(raw) if raw else None
        if request is not None:
            lost = Failure(502, "worker_lost", "the worker that ran this request died", "server_error", 1)
            redis.publish(request.channel, Frame(FrameKind.FAILURE, OUT_OF_BAND, lost.encode()).encode())
        log.warning(
            "orphan ended", extra={"action": "orphan_found", "request_id": execution.job_id, "worker": worker.name}
        )
        orphans.append(BegunJob(execution.job_id, execution, 0, 0, request, None))
    worker._executions = []
    return orphans
