"""Registers workers with RQ, those of private credentials only while these exist."""

from pathlib import Path
from typing import Any

from rq import worker_registration
from rq.worker import BaseWorker
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from shared import keys, names

REGISTER_PRIVATE_LUA = Path(__file__).with_name("register_private.lua").read_text()


def register(worker: BaseWorker, pool: str, pipe: Any) -> None:
    """Adds a worker's registration to a pipeline. Stands for rq.worker_registration.register (RQ 3.0)."""
    if not names.is_private(pool):
        worker_registration.register(worker, pipe)
        return
    queue_sets = [WORKERS_BY_QUEUE_KEY % queue for queue in worker.queue_names()]
    key_names = [keys.PRIVATE_POOLS, REDIS_WORKER_KEYS, *queue_sets]
    pipe.eval(REGISTER_PRIVATE_LUA, len(key_names), *key_names, pool, worker.key)
