"""Current status of the pools, for health checks, metrics, the admin API and `./farm status`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from shared import clock, keys
from shared.credentials.pool_rest import API_KEY_REFUSED, build_reader
from shared.credentials.private import PrivateCredentials
from shared.credentials.records import STATES, USABLE_STATES, known_state
from shared.protocol.pool_pause import PoolPause, decode_pause
from shared.protocol.queue_depths import request_depths
from shared.protocol.relay_queue import BANDS, held_registry_keys
from shared.redis_connection.client import decode_hash

WORKER_STATES = ("busy", "idle", "suspended")


@dataclass
class PoolStatus:
    """Current status of one pool."""

    name: str
    credentials: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    workers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WORKER_STATES, 0))
    #: Requests that wait, by the band that they were admitted to.
    queue_depth: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BANDS, 0))
    #: Requests that wait for a limit of their API key, by band; they are not in `queue_depth`.
    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BANDS, 0))
    #: Fraction of the workers' time spent on jobs, over about the last ten seconds.
    utilisation: float = 0.0
    #: Number of private credentials; the figures above exclude them.
    private_credentials: int = 0
    #: Whether a worker process has workers that take requests, and does not only end those that run; or is about to
    #: have them, as the successor of one that retires.
    is_served: bool = False
    #: Whether the pool's circuit breaker is open.
    upstream_down: bool = False
    #: Why it is open, '' while it is closed.
    upstream_failure: str = ""
    #: Why the breaker of its token endpoint or its API keys (`api_key_refused`) is open; '' while it is closed.
    token_endpoint_failure: str = ""
    #: Since when, and by whom, it is paused.
    pause: PoolPause = field(default_factory=PoolPause)
    #: When the first of its credentials comes back, in seconds since the epoch; 0 while one is in service.
    resting_until: float = 0.0

    @property
    def warnings(self) -> list[str]:
        """What an operator should know, as sentences without a full stop."""
        found = ["an operator has paused it"] if self.pause.since else []
        found += ["its upstream is down"] if self.upstream_down else []
        if self.refuses_api_keys:
            found.append("its upstream refuses several of its API keys and accepts none")
        elif self.token_endpoint_failure:
            found.append(f"its token endpoint fails for several credentials ({self.token_endpoint_failure})")
        if self.resting_seconds and not found:
            found.append(f"all of its credentials rest, the first one for another {math.ceil(self.resting_seconds)} s")
        if foreign := self.credentials.get("foreign"):
            found.append(f"{foreign} credentials belong to another token endpoint (`./farm credentials list`)")
        return found

    @property
    def refuses_api_keys(self) -> bool:
        """Whether its upstream refuses several API keys and accepts none; a pool of API keys has no token endpoint."""
        return self.token_endpoint_failure == API_KEY_REFUSED

    @property
    def resting_seconds(self) -> float:
        """Seconds until the first of its credentials comes back; 0 while one is in service."""
        return max(0.0, self.resting_until - clock.now())

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "credentials": self.credentials,
            "workers": self.workers,
            "queue_depth": self.queue_depth,
            "held": self.held,
            "utilisation": self.utilisation,
            "private_credentials": self.private_credentials,
            "upstream_down": self.upstream_down,
            "upstream_failure": self.upstream_failure,
            "token_endpoint_failure": self.token_endpoint_failure,
            "resting_until": self.resting_until,
            "paused_since": self.pause.since,
            "paused_by": self.pause.by,
        }


def read_pool_statuses(redis: Redis, names: Sequence[str]) -> list[PoolStatus]:
    serving, retiring = (
        [process.decode() for process in redis.zrange(members, 0, -1)]
        for members in (keys.PROCESSES, keys.RETIRING_PROCESSES)
    )
    with redis.pipeline(transaction=False) as pipe:
        pipe.exists(keys.HANDOVER)
        for process in [*serving, *retiring]:
            pipe.hgetall(keys.process(process))
        for name in names:
            pipe.hvals(keys.credentials(name))
            pipe.hget(keys.breaker(name), "reason")
            pipe.hget(keys.token_breaker(name), "reason")
            pipe.get(keys.paused(name))
            for registry in held_registry_keys(name):
                pipe.zcard(registry)
        request_depths(pipe, names)
        is_handed_over, *replies, depths = pipe.execute()
    private = PrivateCredentials(redis).count_by_pool()
    remaining = iter(replies)
    reports = [decode_hash(next(remaining)) for _ in serving]
    retiring_reports = [decode_hash(next(remaining)) for _ in retiring]
    statuses = []
    for name, by_band in zip(names, depths, strict=True):
        states, failure, token_failure, pause_mark = (next(remaining) for _ in range(4))
        status = build_pool_status(name, reports, states, failure is not None, by_band)
        status.upstream_failure = (failure or b"").decode()
        status.workers["busy"] += sum(int(report.get(f"busy:{name}", 0)) for report in retiring_reports)
        status.held = {band: next(remaining) for band in BANDS}
        status.token_endpoint_failure = (token_failure or b"").decode()
        status.pause = decode_pause(pause_mark)
        is_usable = any(status.credentials[state] for state in USABLE_STATES)
        status.is_served = status.is_served or bool(is_handed_over and serving and is_usable)
        statuses.append(status)
        status.private_credentials = private[status.name]
    read_rest = build_reader(redis)
    for status in statuses:
        if (
            status.credentials["cooling"]
            and not status.credentials["active"]
            and (rest := read_rest((status.name, "")))
        ):
            status.resting_until = rest.ends_at
    return statuses


def build_pool_status(
    name: str, reports: list[dict[str, str]], states: list[bytes], upstream_down: bool, depths: list[int]
) -> PoolStatus:
    """Combines the reports of the worker processes; utilisation is averaged over the workers.

    `states` are those of the pool's credentials, `depths` the requests that wait, in the order of BANDS.
    """
    pool = PoolStatus(name, upstream_down=upstream_down)
    for state in states:
        pool.credentials[known_state(state.decode())] += 1
    pool.queue_depth = dict(zip(BANDS, depths, strict=True))
    utilisation_sum = 0.0
    for report in reports:
        worker_counts = {state: int(report.get(f"{state}:{name}", 0)) for state in WORKER_STATES}
        for worker_state, count in worker_counts.items():
            pool.workers[worker_state] += count
        utilisation_sum += float(report.get(f"utilisation:{name}", 0)) * sum(worker_counts.values())
    worker_count = sum(pool.workers.values())
    pool.utilisation = round(utilisation_sum / worker_count, 4) if worker_count else 0.0
    pool.is_served = bool(worker_count)
    return pool
