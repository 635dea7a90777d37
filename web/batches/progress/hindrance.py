"""Finds out what keeps the requests of a batch from being run."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from redis import Redis

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.batches.batch import Batch
from shared.batches.hindrances import (
    FILE_STORE,
    KEY_DISABLED,
    KEY_EXPIRED,
    KEY_LIMITED,
    KEY_OVER_QUOTA,
    NO_ACCOUNT,
    NO_WORKER_PROCESS,
    POOL_PAUSED,
    QUEUE_FULL,
    RESULTS_WAIT,
    UPSTREAM_DOWN,
    UPSTREAM_REFUSES,
)
from shared.live_processes import find_oldest_heartbeat
from shared.settings.schema import PoolSettings
from web.batches.result_files import MAX_RESULT_BYTES

#: Seconds without an ended request after which what may pass by itself is called a hindrance.
PATIENCE_SECONDS = 10.0
#: Code of the farm's refusal of a line -> what it tells. Others tell of nothing, or of what is read anyway.
REFUSALS = {
    "insufficient_quota": KEY_OVER_QUOTA,
    "rate_limit_exceeded": KEY_LIMITED,
    "no_credentials": NO_ACCOUNT,
    "upstream_unavailable": UPSTREAM_DOWN,
    "upstream_auth_failed": UPSTREAM_REFUSES,
    "upstream_login_failed": UPSTREAM_REFUSES,
    "queue_full": QUEUE_FULL,
}


@dataclass(frozen=True)
class FarmState:
    """What batches need of the farm."""

    #: Pool of a batch -> requests that its accounts in service can run at once.
    accounts: Mapping[str, int] = field(default_factory=dict)
    #: Why none of the pools takes requests, '' if one does.
    pool_hindrance: str = ""
    #: The store of files, '' if all is well.
    store_hindrance: str = ""


def read_farm_state(redis: Redis, pools: Sequence[PoolSettings]) -> FarmState:
    """Raises RedisError."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.zcount(keys.PROCESSES, find_oldest_heartbeat(), "+inf")
        pipe.hget(keys.FILE_STORE_TROUBLE, "state")
        for pool in pools:
            pipe.hvals(keys.credentials(pool.name))
            pipe.exists(keys.breaker(pool.name))
            pipe.exists(keys.paused(pool.name))
        processes, store_state, *replies = pipe.execute()
    active = [states.count(b"active") for states in replies[::3]]
    found = [name_pool_hindrance(*each) for each in zip(active, replies[1::3], replies[2::3], strict=True)]
    pool_hindrance = "" if "" in found or not found else found[0]
    return FarmState(
        accounts={pool.name: pool.slots * count for pool, count in zip(pools, active, strict=True)},
        pool_hindrance=pool_hindrance if processes or pool_hindrance == POOL_PAUSED else NO_WORKER_PROCESS,
        store_hindrance=FILE_STORE.get((store_state or b"").decode(), ""),
    )


def name_pool_hindrance(active: int, is_down: bool, is_paused: bool) -> str:
    return POOL_PAUSED if is_paused else UPSTREAM_DOWN if is_down else "" if active else NO_ACCOUNT


def may_begin(key: ApiKey | None, batch: Batch) -> bool:
    """Whether the key may run further lines, and Redis has room for their results."""
    return bool(key) and not find_stop(key, batch, FarmState())


def find_stop(key: ApiKey | None, batch: Batch, farm: FarmState) -> str:
    """Why no further line begins; '' if lines may begin."""
    if key and not key.enabled:
        return KEY_DISABLED
    if key and key.is_expired:
        return KEY_EXPIRED
    return (farm.store_hindrance or RESULTS_WAIT) if batch.result_bytes > MAX_RESULT_BYTES else ""


def find_hindrance(
    key: ApiKey | None, batch: Batch, farm: FarmState, idle_seconds: float, refusals: Iterable[str]
) -> str:
    """A word of HINDRANCES, '' for nothing that is known.

    `idle_seconds`: since a request has ended; `refusals`: codes with which the lines in flight were refused last, ''
    for those that were not.
    """
    if stop := find_stop(key, batch, farm):
        return stop
    if idle_seconds < PATIENCE_SECONDS:
        return POOL_PAUSED if farm.pool_hindrance == POOL_PAUSED else ""
    return farm.pool_hindrance or name_refusal(refusals)


def name_refusal(refusals: Iterable[str]) -> str:
    """What the refusals tell if all lines were refused: the most frequent one."""
    counted = Counter(refusals)
    if not counted or "" in counted:
        return ""
    return REFUSALS.get(counted.most_common(1)[0][0], "")
