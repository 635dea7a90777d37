"""Store of the private credentials: refresh tokens that callers present instead of an API key.

Each private credential is a pool of its own, `<pool>~<credential id>`, with the configured pool's settings. It thus has
its own queue, workers, lease and circuit breaker, and no other caller's request can reach its account. Its token is
sealed like any other. Once idle for long enough, it is deleted with everything that its pool has stored.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.registry import BaseRegistry, FailedJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from shared import clock, keys, names
from shared.credentials.removal import Removal, keep_removal
from shared.credentials.sealing import Sealer, fingerprint
from shared.credentials.store import Credentials, build_fields
from shared.protocol.relay_queue import BANDS, queue_keys
from shared.redis_connection.client import register_script

#: What the id of a caller begins with, as no id of an API key does.
CALLER_PREFIX = "private-"
#: Minimum idle seconds before deletion; must exceed the second for which a front caches a private credential.
MIN_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class KnownToken:
    """What the farm knows about a refresh token."""

    #: Its pool: a private credential's own, or a configured pool.
    pool: str
    state: str
    #: Whether the token endpoint has ever accepted it.
    is_proven: bool

    @property
    def credential_id(self) -> str:
        """Only for a private credential."""
        return names.private_credential_id(self.pool)


class PrivateCredentials:
    """Store of the private credentials of all pools."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._add_script = register_script(redis, Path(__file__).with_name("add_private.lua"))
        self._forget_script = register_script(redis, Path(__file__).with_name("forget_private.lua"))

    def list_pools(self) -> list[str]:
        """Pools of all private credentials, least recently used first."""
        return [name.decode() for name in self._redis.zrange(keys.PRIVATE_POOLS, 0, -1)]

    def count_by_pool(self) -> Counter[str]:
        return Counter(names.configured_pool(name) for name in self.list_pools())

    def find(self, pool: str, token: str) -> KnownToken | None:
        """Looks a token up in the pool and its private credentials; None if it is unknown."""
        credential_id = self._redis.hget(keys.fingerprints(pool), fingerprint(token))
        if credential_id is None:
            return None
        own_pool, refreshed_at = self._redis.hmget(keys.credential(credential_id.decode()), ("pool", "refreshed_at"))
        if own_pool is None:
            return None
        state = self._redis.hget(keys.credentials(own_pool.decode()), credential_id)
        return KnownToken(own_pool.decode(), state.decode() if state else "", bool(refreshed_at))

    def get_state(self, pool: str) -> str:
        """The state of the credential that has this pool, '' if there is none."""
        state = self._redis.hget(keys.credentials(pool), names.private_credential_id(pool))
        return state.decode() if state else ""

    def has_caller(self, caller: str) -> bool:
        """Whether the credential of a caller's id is there."""
        return bool(self._redis.exists(keys.credential(caller.removeprefix(CALLER_PREFIX))))

    def add(self, pool: str, token: str, max_credentials: int, token_origin: str = "") -> str:
        """Seals and stores a token, given for the token endpoint of that origin.

        Returns the pool that has it, '' if there are `max_credentials` already.
        """
        credential_id = secrets.token_hex(5)
        name = names.private_pool(pool, credential_id)
        fields = build_fields(Sealer.load(self._redis), token, credential_id, name, "private", token_origin)
        stored_in = self._add_script(
            keys=[keys.fingerprints(pool), keys.credentials(name), keys.credential(credential_id), keys.PRIVATE_POOLS],
            args=[
                credential_id,
                fingerprint(token),
                clock.now(),
                name,
                names.private_pool(pool, ""),
                max_credentials,
                keys.credential(""),
                *(part for pair in fields.items() for part in pair),
            ],
        )
        return cast("bytes", stored_in).decode()

    def touch(self, pool: str, used_at: float = 0) -> None:
        """Records a use, now by default, in seconds since the epoch. Does not bring back a deleted credential."""
        self._redis.zadd(keys.PRIVATE_POOLS, {pool: used_at or clock.now()}, xx=True)

    def forget(self, pool: str, unused_since: float = float("inf")) -> bool:
        """Deletes a private credential unless it has jobs or was used after `unused_since`; returns whether it did.

        With the default, neither its last use nor a batch of its caller nor the state `disabled` protects it.
        """
        credential_id = names.private_credential_id(pool)
        queues = queue_keys(pool)
        started, failed = (registry_keys(pool, kind) for kind in (StartedJobRegistry, FailedJobRegistry))
        fair_queue_keys = [keys.fair_queue(pool), *(f"{keys.fair_queue(pool)}:{band}" for band in BANDS)]
        forgotten = self._forget_script(
            keys=[
                *(keys.PRIVATE_POOLS, keys.credentials(pool), keys.credential(credential_id), keys.fingerprints(pool)),
                *(keys.history(credential_id), keys.LAST_USED, Queue.redis_queues_keys, *queues),
                *(*started, *failed, *(WORKERS_BY_QUEUE_KEY % queue(pool) for queue in BANDS.values())),
                *(REDIS_WORKER_KEYS, keys.CREDENTIAL_LIMITS, keys.active_batches(caller_id(credential_id))),
                *fair_queue_keys,
                *(
                    keys.resting_models(credential_id),
                    keys.resting_by_pool(pool),
                    keys.idle_workers(pool),
                    keys.served_jobs(pool),
                    keys.breaker(pool),
                    keys.probe(pool),
                    keys.models(pool),
                    *keys.pace_keys(credential_id),
                    keys.activity(credential_id),
                ),
            ],
            args=[pool, credential_id, unused_since, caller_id(credential_id), Job.key_for(""), Result.get_key("")],
        )
        return bool(forgotten)

    def forget_idle(self, idle_seconds: Callable[[str], float]) -> list[str]:
        """Deletes private credentials idle for longer than `idle_seconds(pool)`; returns their pools."""
        now, forgotten = clock.now(), []
        for name, last_used in self._redis.zrange(keys.PRIVATE_POOLS, 0, -1, withscores=True):
            pool = name.decode()
            unused_since = now - max(MIN_IDLE_SECONDS, idle_seconds(pool))
            if last_used <= unused_since and self.forget(pool, unused_since):
                forgotten.append(pool)
        return forgotten


def registry_keys(pool: str, kind: type[BaseRegistry]) -> list[str]:
    return [str(kind.key_template.format(queue(pool))) for queue in BANDS.values()]


def caller_id(credential_id: str) -> str:
    """Takes the place of an API key's id in the request log."""
    return CALLER_PREFIX + credential_id


def is_caller(key_id: str) -> bool:
    """Whether a private credential's caller has this id, and no API key."""
    return key_id.startswith(CALLER_PREFIX)


def remove_credential(redis: Redis, pool: str, credential_id: str, by: str) -> bool:
    """Deletes a credential of any pool with everything stored for it; returns False if it does not exist.

    `by` is who removes it, as in the audit log.
    """
    if names.is_private(pool) and PrivateCredentials(redis).forget(pool):
        keep_removal(redis, credential_id, Removal("", pool, clock.now(), by))
        return True
    return Credentials(redis).remove(pool, credential_id, by)


def list_all_pools(redis: Redis, configured: Iterable[str]) -> list[str]:
    """The configured pools, followed by those of their private credentials."""
    pools = list(configured)
    return [*pools, *(pool for pool in PrivateCredentials(redis).list_pools() if names.configured_pool(pool) in pools)]
