"""What runs now, as the worker processes report it and the queues show it; read by health, metrics and `status`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from shared import keys
from shared.credentials.private import PrivateCredentials
from shared.credentials.records import STATES
from shared.protocol.relay_queue import BANDS, queue_keys
from shared.redis_connection.client import decode_hash

WORKER_STATES = ("busy", "idle", "suspended")


@dataclass
class PoolStatus:
    """One pool, now."""

    name: str
    credentials: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    workers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WORKER_STATES, 0))
    queue_depth: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BANDS, 0))
    #: Share of the workers' time spent working, over about the last ten seconds.
    utilisation: float = 0.0
    #: Accounts that callers have brought themselves; they are in none of the figures above.
    private_credentials: int = 0
    #: Whether the pool's circuit breaker is open.
    upstream_down: bool = False

    @property
    def worker_count(self) -> int:
        """Workers in whatever state."""
        return sum(self.workers.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name,
            "credentials": self.credentials,
            "workers": self.workers,
            "queue_depth": self.queue_depth,
            "utilisation": self.utilisation,
            "private_credentials": self.private_credentials,
            "upstream_down": self.upstream_down,
        }


def read_pool_statuses(redis: Redis, names: Sequence[str]) -> list[PoolStatus]:
    """The state of each pool."""
    processes = [one.decode() for one in redis.zrange(keys.PROCESSES, 0, -1)]
    with redis.pipeline(transaction=False) as pipe:
        for one in processes:
            pipe.hgetall(keys.process(one))
        for name in names:
            pipe.hvals(keys.credentials(name))
            pipe.exists(keys.breaker(name))
            for queue in queue_keys(name):
                pipe.llen(queue)
        answers = pipe.execute()
    private = PrivateCredentials(redis).count_by_pool()
    reports = [decode_hash(answer) for answer in answers[: len(processes)]]
    rest = iter(answers[len(processes) :])
    states = [
        build_pool_status(name, reports, next(rest), bool(next(rest)), [next(rest) for _ in BANDS]) for name in names
    ]
    for state in states:
        state.private_credentials = private[state.name]
    return states


def build_pool_status(
    name: str, reports: list[dict[str, str]], states: list[bytes], down: bool, depths: list[int]
) -> PoolStatus:
    """One pool out of the reports of all processes."""
    pool = PoolStatus(name, upstream_down=down)
    for held in states:
        pool.credentials[held.decode()] += 1
    pool.queue_depth = dict(zip(BANDS, depths, strict=True))
    weighted = 0.0
    for report in reports:
        here = {state: int(report.get(f"{state}:{name}", 0)) for state in WORKER_STATES}
        for state, count in here.items():
            pool.workers[state] += count
        weighted += float(report.get(f"utilisation:{name}", 0)) * sum(here.values())
    pool.utilisation = round(weighted / pool.worker_count, 4) if pool.worker_count else 0.0
    return pool
