"""What a worker process reports of itself and learns of the others and the credentials, once a second."""

import time
from collections.abc import Iterable
from typing import Any

from redis import Redis
from rq.worker_registration import REDIS_WORKER_KEYS

from shared import keys, names
from shared.credentials.records import USABLE
from shared.redis_connection.client import decode_hash
from shared.settings.schema import Settings
from workers.process.fair_shares import UNLIMITED_CAPACITY, split_evenly
from workers.worker.rq_worker import FarmWorker

#: Seconds without a report after which a process no longer counts.
MEMBER_TIMEOUT_SECONDS = 6.0
#: Seconds over which the utilisation is averaged, about.
UTILISATION_WINDOW_SECONDS = 10.0
#: All private credentials, which are shared out as if they were one pool.
PRIVATE_GROUP = "private credentials"


class Membership:
    """The last report and what it brought."""

    def __init__(self, redis: Redis, process_id: str, settings: Settings) -> None:
        self._redis = redis
        self._process_id = process_id
        self._settings = settings
        self._pools = settings.pool_names
        #: The pools of private credentials.
        self.private_pools: list[str] = []
        self._capacity = settings.max_workers or UNLIMITED_CAPACITY
        self._states: dict[str, dict[str, str]] = {}
        self._capacities: dict[str, int] = {}
        self._worked: dict[str, float] = {}
        self._before: tuple[float, dict[str, float]] = (time.monotonic(), {})
        self._utilisation: dict[str, float] = {}
        #: Whether `rq suspend` is in force.
        self.is_suspended = False
        #: Whether RQ knows fewer workers than are here, because Redis has lost them.
        self.has_lost_workers = False
        #: Pool -> what Redis has of its breaker, empty when it is closed.
        self.breakers: dict[str, dict[str, str]] = {}
        #: When all that was asked for, by the monotonic clock.
        self.refreshed_at = 0.0
        #: When the Redis last answered in whose place another has come, by the monotonic clock; -inf for never.
        self.redis_replaced_at = float("-inf")
        self._servers: list[str] = []

    def refresh(self, workers: Iterable[FarmWorker]) -> None:
        """Reports this process, and reads who else is there, what is usable and whether work is suspended."""
        here = list(workers)
        report = self._build_report(here)
        known = sum(worker.is_registered for worker in here)
        now = time.time()
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(keys.process(self._process_id), mapping=report)
            pipe.expire(keys.process(self._process_id), int(MEMBER_TIMEOUT_SECONDS * 5))
            pipe.zadd(keys.PROCESSES, {self._process_id: now})
            pipe.zremrangebyscore(keys.PROCESSES, "-inf", now - MEMBER_TIMEOUT_SECONDS)
            pipe.zrange(keys.PROCESSES, 0, -1)
            pipe.exists(keys.RQ_SUSPENDED)
            pipe.scard(REDIS_WORKER_KEYS)
            pipe.info("server")
            pipe.zrange(keys.PRIVATE_POOLS, 0, -1)
            for pool in self._pools:
                pipe.hgetall(keys.credentials(pool))
                pipe.hgetall(keys.breaker(pool))
            asked_at = time.monotonic()
            *_, others, suspended, registered, server, private = (answers := pipe.execute())[:9]
        self.is_suspended = bool(suspended)
        self.has_lost_workers = int(registered) < known
        self._states = {pool: decode_hash(found) for pool, found in zip(self._pools, answers[9::2], strict=True)}
        self.breakers = {pool: decode_hash(found) for pool, found in zip(self._pools, answers[10::2], strict=True)}
        self._detect_replaced_redis(str(server.get("run_id", "")))
        self.refreshed_at = asked_at
        self._read_details([one.decode() for one in others], [one.decode() for one in private])

    def _detect_replaced_redis(self, run_id: str) -> None:
        """Notes when Redis was started anew, or another took its place: what was written last may be lost with it."""
        if run_id not in self._servers:
            if self._servers:
                self.redis_replaced_at = self.refreshed_at
            self._servers.append(run_id)

    def _read_details(self, others: list[str], private: list[str]) -> None:
        """The other processes' capacities, and the states of private credentials."""
        served = [name for name in private if self._settings.has_pool(name)]
        with self._redis.pipeline(transaction=False) as pipe:
            for other in others:
                pipe.hget(keys.process(other), "capacity")
            for name in served:
                pipe.hgetall(keys.credentials(name))
                pipe.hgetall(keys.breaker(name))
            answers = pipe.execute()
        self._capacities = {o: int(c) for o, c in zip(others, answers, strict=False) if c}
        rest = answers[len(others) :]
        self._states |= {name: decode_hash(found) for name, found in zip(served, rest[::2], strict=True)}
        self.breakers |= {name: decode_hash(found) for name, found in zip(served, rest[1::2], strict=True)}
        self.private_pools = served

    def leave(self) -> None:
        """This process takes no part any more; the others share out what it had."""
        self.remove(self._process_id)

    def remove(self, process_id: str) -> None:
        """A process takes no part any more."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrem(keys.PROCESSES, process_id)
            pipe.delete(keys.process(process_id))
            pipe.execute()

    @property
    def groups(self) -> list[str]:
        """What is shared out among the processes, one after the other: each pool, then all private credentials."""
        return [*self._pools, PRIVATE_GROUP]

    def pools_in_group(self, group: str) -> list[str]:
        """The pools of a group."""
        return self.private_pools if group == PRIVATE_GROUP else [group]

    def usable_credentials(self, pool: str) -> list[str]:
        """Credentials of the pool that should have a worker."""
        return [one for one, state in self._states.get(pool, {}).items() if state in USABLE]

    def usable_credentials_in_group(self, group: str) -> list[str]:
        """Credentials of the group that should have a worker."""
        return [one for pool in self.pools_in_group(group) for one in self.usable_credentials(pool)]

    def credential_state(self, pool: str, credential_id: str) -> str:
        """A credential's state, '' when it is not known."""
        return self._states.get(pool, {}).get(credential_id, "")

    def fair_share(self, group: str) -> int:
        """How many credentials of the group this process should hold; its capacity serves the groups in their order."""
        taken: dict[str, int] = {}
        for name in self.groups:
            free = {process: c - taken.get(process, 0) for process, c in self._capacities.items()}
            shares = split_evenly(len(self.usable_credentials_in_group(name)), free)
            if name == group:
                return shares.get(self._process_id, 0)
            taken = {process: taken.get(process, 0) + share for process, share in shares.items()}
        return 0

    # What is reported

    def record_ended(self, worker: FarmWorker) -> None:
        """Keeps the working time of a worker that has ended."""
        group = pool_group(worker.lease.pool)
        self._worked[group] = self._worked.get(group, 0.0) + worker.runner.seconds_worked()

    def _build_report(self, workers: list[FarmWorker]) -> dict[str, Any]:
        report: dict[str, Any] = {"capacity": self._capacity, "reported_at": time.time()}
        self._update_utilisation(workers)
        for pool in self._pools:
            here = [w for w in workers if w.lease.pool == pool]
            busy = sum(1 for w in here if w.runner.busy_since)
            resting = sum(1 for w in here if not w.runner.busy_since and (self.is_suspended or not w.can_work()))
            report[f"busy:{pool}"] = busy
            report[f"suspended:{pool}"] = resting
            report[f"idle:{pool}"] = len(here) - busy - resting
            report[f"utilisation:{pool}"] = round(self._utilisation.get(pool, 0.0), 4)
        return report

    def _update_utilisation(self, workers: list[FarmWorker]) -> None:
        """Share of the workers' time that was spent working, over the last WINDOW."""
        before, at_that_time = self._before
        passed = time.monotonic() - before
        if passed < UTILISATION_WINDOW_SECONDS and self._utilisation:
            return
        worked = dict(self._worked)
        for worker in workers:
            group = pool_group(worker.lease.pool)
            worked[group] = worked.get(group, 0.0) + worker.runner.seconds_worked()
        for pool in self._pools:
            here = sum(1 for w in workers if w.lease.pool == pool)
            gained = worked.get(pool, 0.0) - at_that_time.get(pool, 0.0)
            self._utilisation[pool] = min(1.0, gained / (passed * here)) if here and passed else 0.0
        self._before = (time.monotonic(), worked)


def pool_group(pool: str) -> str:
    """The group that a pool is in."""
    return PRIVATE_GROUP if names.is_private(pool) else pool
