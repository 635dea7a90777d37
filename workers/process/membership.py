"""Cluster membership: reports this worker process and reads the others' reports, once a second."""

import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from redis import Redis
from rq.worker_registration import REDIS_WORKER_KEYS

from shared import clock, keys, names
from shared.credentials.records import USABLE_STATES
from shared.credentials.sealing import SEALING_VERSION
from shared.redis_connection.client import decode_hash
from shared.sentinel_url import is_sentinel_url
from shared.settings.schema import Settings
from workers.process.fair_shares import UNLIMITED_CAPACITY, split_evenly
from workers.process.silent_processes import CONNECTIONS_FIELD, SilentProcesses, encode_ids
from workers.process.utilisation import UtilisationMeter
from workers.worker.rq_worker import FarmWorker
from workers.worker.suspension import Suspension

#: Seconds without a report after which a process is no longer a member.
MEMBER_TIMEOUT_SECONDS = 6.0
#: Seconds that a successor has for claiming what a retiring process has left to it; a second is usual.
HANDOVER_SECONDS = 20.0
#: The group of all private credentials, which are shared out as if they were one pool.
PRIVATE_GROUP = "private credentials"
PRIVATE_STATES_LUA = Path(__file__).with_name("private_states.lua").read_text()


class Membership:
    """This process's report, and what the last refresh read from Redis."""

    def __init__(self, redis: Redis, process_id: str, settings: Settings) -> None:
        self._redis = redis
        self._process_id = process_id
        self._settings = settings
        self._pools = settings.pool_names
        self._silent_processes = SilentProcesses(redis)
        #: The pools of private credentials.
        self.private_pools: list[str] = []
        self._capacity = settings.max_workers or UNLIMITED_CAPACITY
        #: Pool -> credential -> state.
        self._states: dict[str, dict[str, str]] = {}
        #: Credential -> limits of its own, encoded.
        self.own_limits: dict[str, str] = {}
        #: Worker process -> how many credentials it can hold.
        self._capacities: dict[str, int] = {}
        self.utilisation = UtilisationMeter(self._pools)
        #: Whether `rq suspend` is in force, and which pools are paused.
        self.suspension = Suspension()
        #: Whether RQ knows fewer workers than run in this process, because Redis has lost data.
        self.has_lost_workers = False
        #: Pool -> its circuit breaker's record in Redis, empty when the breaker is closed.
        self.breakers: dict[str, dict[str, str]] = {}
        #: Configured pool -> the record of its token endpoint's breaker, empty when the breaker is closed.
        self.token_breakers: dict[str, dict[str, str]] = {}
        #: Whether a worker process is alive that can't read sealed values with a version byte.
        self.has_older_process = False
        #: Pools in which requests wait for a credential that has not tried them.
        self.pools_with_retries: list[str] = []
        #: When the last refresh was sent, by the monotonic clock.
        self.refreshed_at = 0.0
        #: When the previous Redis server last replied, by the monotonic clock; -inf while there was only one.
        self.redis_replaced_at = float("-inf")
        #: When the primary that the sentinels have promoted last first replied; -inf while there was none.
        self.failed_over_at = float("-inf")
        self._server_run_id = ""

    def refresh(self, workers: Iterable[FarmWorker]) -> None:
        """Reports this process; reads the other members, the credentials, the breakers, `rq suspend` and pauses."""
        own_workers = list(workers)
        report = self._build_report(own_workers)
        with self._redis.pipeline(transaction=False) as pipe:
            self._send_report(pipe, report, keys.PROCESSES)
            report_length = len(pipe)
            pipe.zrange(keys.PROCESSES, 0, -1, withscores=True)
            pipe.exists(keys.RQ_SUSPENDED)
            pipe.mget([keys.paused(pool) for pool in self._pools])
            pipe.scard(REDIS_WORKER_KEYS)
            pipe.hgetall(keys.CREDENTIAL_LIMITS)
            pipe.info("server")
            pipe.eval(PRIVATE_STATES_LUA, 1, keys.PRIVATE_POOLS, keys.credentials(""), keys.breaker(""))
            for pool in self._pools:
                pipe.hgetall(keys.credentials(pool))
                pipe.hgetall(keys.breaker(pool))
                pipe.hgetall(keys.token_breaker(pool))
                pipe.exists(keys.waiting_retries(pool), keys.waiting_batch_retries(pool))
            sent_at, asked_at = time.monotonic(), time.time()
            processes, suspended, marks, registered, own_limits, server, private, *by_pool = pipe.execute()[
                report_length:
            ]
        clock.compare(divmod(int(server["server_time_usec"]), 1_000_000), asked_at)
        paused = [pool for pool, mark in zip(self._pools, marks, strict=True) if mark is not None]
        self.suspension.sync(is_total=bool(suspended), paused=paused)
        self.own_limits = decode_hash(own_limits)
        self._states, self.breakers, self.token_breakers = (
            {pool: decode_hash(reply) for pool, reply in zip(self._pools, by_pool[first::4], strict=True)}
            for first in (0, 1, 2)
        )
        self.pools_with_retries = [pool for pool, count in zip(self._pools, by_pool[3::4], strict=True) if count]
        self._detect_replaced_redis(str(server.get("run_id", "")))
        self.refreshed_at = sent_at
        self._keep_private_states(private)
        last_reports = {process.decode(): reported_at for process, reported_at in processes}
        self._silent_processes.unblock(last_reports, clock.now())
        self._read_members(list(last_reports))
        self.has_lost_workers = int(registered) < sum(map(self._should_be_registered, own_workers))

    def _should_be_registered(self, worker: FarmWorker) -> bool:
        """Whether RQ should know the worker; that of a forgotten private credential is about to stop."""
        has_credential = self.credential_state(worker.lease.pool, worker.lease.credential_id) != ""
        return worker.is_registered and has_credential

    def _detect_replaced_redis(self, run_id: str) -> None:
        """Notes a restart or failover of Redis, which may have lost the last writes."""
        if self._server_run_id not in ("", run_id):
            self.redis_replaced_at = self.refreshed_at
            if is_sentinel_url(self._settings.redis_url):
                self.failed_over_at = time.monotonic()
        self._server_run_id = run_id

    def _keep_private_states(self, private: list[Any]) -> None:
        """Keeps what private_states.lua has read, of the pools that are configured."""
        self.private_pools = []
        for name, states, breaker in private:
            pool = name.decode()
            if self._settings.has_pool(pool):
                self.private_pools.append(pool)
                self._states[pool], self.breakers[pool] = decode_pairs(states), decode_pairs(breaker)

    def _read_members(self, processes: list[str]) -> None:
        """Reads the members' capacities and versions."""
        with self._redis.pipeline(transaction=False) as pipe:
            for process in processes:
                pipe.hmget(keys.process(process), "capacity", "sealing")
            replies = pipe.execute()
        self._capacities = {
            process: int(capacity) for process, (capacity, _) in zip(processes, replies, strict=True) if capacity
        }
        self.has_older_process = any(capacity and not sealing for capacity, sealing in replies)

    def _send_report(self, pipe: Any, report: dict[str, Any], members: str) -> None:
        """Adds the report of this process, as one of these members, to a pipeline; drops those that are silent."""
        now = clock.now()
        pipe.hset(keys.process(self._process_id), mapping=report)
        pipe.expire(keys.process(self._process_id), int(MEMBER_TIMEOUT_SECONDS * 5))
        pipe.zadd(members, {self._process_id: now})
        for each in (keys.PROCESSES, keys.RETIRING_PROCESSES):
            pipe.zremrangebyscore(each, "-inf", now - MEMBER_TIMEOUT_SECONDS)

    def retire(self, workers: Iterable[FarmWorker], *, is_replaced: bool) -> None:
        """Reports this process as one that only ends its requests: the other members share out its credentials.

        Until a process that replaces it has claimed them, the farm counts as serving.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrem(keys.PROCESSES, self._process_id)
            self._send_report(pipe, self._build_report(list(workers)), keys.RETIRING_PROCESSES)
            if is_replaced:
                pipe.set(keys.HANDOVER, self._process_id, ex=int(HANDOVER_SECONDS))
            pipe.execute()

    def leave(self) -> None:
        """Removes this process, which has no workers any more."""
        self.remove(self._process_id)

    def remove(self, process_id: str) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrem(keys.PROCESSES, process_id)
            pipe.zrem(keys.RETIRING_PROCESSES, process_id)
            pipe.delete(keys.process(process_id))
            pipe.execute()

    @property
    def groups(self) -> list[str]:
        """The groups of pools, in the order in which their credentials are shared out: private credentials last."""
        return [*self._pools, PRIVATE_GROUP]

    def pools_in_group(self, group: str) -> list[str]:
        return self.private_pools if group == PRIVATE_GROUP else [group]

    def usable_credentials(self, pool: str) -> list[str]:
        """Credentials of the pool that should have a worker."""
        return [credential for credential, state in self._states.get(pool, {}).items() if state in USABLE_STATES]

    def usable_credentials_in_group(self, group: str) -> list[str]:
        """Credentials of the group that should have a worker."""
        return [credential for pool in self.pools_in_group(group) for credential in self.usable_credentials(pool)]

    def credential_state(self, pool: str, credential_id: str) -> str:
        """The state of a credential, '' when it is unknown."""
        return self._states.get(pool, {}).get(credential_id, "")

    def fair_share(self, group: str) -> int:
        """How many credentials of the group this process should hold, given its capacity left by the groups before."""
        taken: dict[str, int] = {}
        for name in self.groups:
            free = {process: total - taken.get(process, 0) for process, total in self._capacities.items()}
            shares = split_evenly(len(self.usable_credentials_in_group(name)), free)
            if name == group:
                return shares.get(self._process_id, 0)
            taken = {process: taken.get(process, 0) + share for process, share in shares.items()}
        return 0

    def _build_report(self, workers: list[FarmWorker]) -> dict[str, Any]:
        by_pool: defaultdict[str, list[FarmWorker]] = defaultdict(list)
        for worker in workers:
            by_pool[worker.lease.pool].append(worker)
        utilisation = self.utilisation.measure(by_pool)
        report: dict[str, Any] = {
            "capacity": self._capacity,
            "reported_at": clock.now(),
            "sealing": SEALING_VERSION,
            "needs_refresher": 1,
            CONNECTIONS_FIELD: encode_ids(worker.blocking_pop.client_id for worker in workers),
        }
        for pool in self._pools:
            idle = [w for w in by_pool[pool] if not w.runner.busy_since]
            suspended = sum(1 for w in idle if self.suspension.is_total or not w.can_work())
            report[f"busy:{pool}"] = len(by_pool[pool]) - len(idle)
            report[f"suspended:{pool}"] = suspended
            report[f"idle:{pool}"] = len(idle) - suspended
            report[f"utilisation:{pool}"] = round(utilisation[pool], 4)
        return report


def decode_pairs(pairs: list[bytes]) -> dict[str, str]:
    """A hash as Lua returns it: names and values by turns."""
    return decode_hash(dict(zip(pairs[::2], pairs[1::2], strict=True)))


def pool_group(pool: str) -> str:
    """The group that a pool is in."""
    return PRIVATE_GROUP if names.is_private(pool) else pool
