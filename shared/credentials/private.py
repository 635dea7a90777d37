"""Private credentials: a caller's own refresh token in place of an API key, with a worker for that caller alone.

Each is a pool of one, `<pool>~<credential id>`, with the settings of the pool that it is in: so its queue, its worker,
its lease and its breaker are its own, and nobody else's request can reach its account. Its token is sealed as any
other. One that was not used for a while is forgotten with all that belongs to it.
"""

import secrets
import time
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

from shared import keys, names
from shared.credentials.sealing import Sealer, fingerprint
from shared.credentials.store import Credentials, build_fields
from shared.protocol.relay_queue import BANDS, queue_keys
from shared.redis_connection.client import register_script

#: Least seconds without a request: a front believes for a second that it knows one.
MIN_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class KnownToken:
    """A refresh token that the farm has."""

    #: The pool that it is in: a private credential's own, or the operator's.
    pool: str
    state: str
    #: Whether the token endpoint has ever taken it.
    is_proven: bool

    @property
    def credential_id(self) -> str:
        """The id of a private credential."""
        return names.private_credential_id(self.pool)


class PrivateCredentials:
    """The private credentials of all pools."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._add = register_script(redis, Path(__file__).with_name("add_private.lua"))
        self._forget = register_script(redis, Path(__file__).with_name("forget_private.lua"))

    def list_pools(self) -> list[str]:
        """Their pools, the one that was used last at the end."""
        return [name.decode() for name in self._redis.zrange(keys.PRIVATE_POOLS, 0, -1)]

    def count_by_pool(self) -> Counter[str]:
        """How many there are in each configured pool."""
        return Counter(names.configured_pool(name) for name in self.list_pools())

    def find(self, pool: str, token: str) -> KnownToken | None:
        """What is known of a token of that pool; None for nothing."""
        found = self._redis.hget(keys.fingerprints(pool), fingerprint(token))
        if found is None:
            return None
        name, refreshed = self._redis.hmget(keys.credential(found.decode()), ("pool", "refreshed_at"))
        if name is None:
            return None
        state = self._redis.hget(keys.credentials(name.decode()), found)
        return KnownToken(name.decode(), state.decode() if state else "", bool(refreshed))

    def add(self, pool: str, token: str, max_credentials: int) -> str:
        """Seals and keeps a token; returns the pool that has it now, '' when there are so many already."""
        credential_id = secrets.token_hex(5)
        name = names.private_pool(pool, credential_id)
        fields = build_fields(Sealer.load(self._redis), token, credential_id, name, label="private")
        found = self._add(
            keys=[keys.fingerprints(pool), keys.credentials(name), keys.credential(credential_id), keys.PRIVATE_POOLS],
            args=[
                credential_id,
                fingerprint(token),
                time.time(),
                name,
                names.private_pool(pool, ""),
                max_credentials,
                keys.credential(""),
                *(part for pair in fields.items() for part in pair),
            ],
        )
        return cast("bytes", found).decode()

    def touch(self, name: str, at: float = 0) -> None:
        """Notes that it was used then, or now; one that was forgotten meanwhile stays so."""
        self._redis.zadd(keys.PRIVATE_POOLS, {name: at or time.time()}, xx=True)

    def forget(self, name: str, unused_since: float = float("inf")) -> bool:
        """Forgets one that was not used since then and has no work; False when it has."""
        credential_id = names.private_credential_id(name)
        queues = queue_keys(name)
        started, failed = (registry_keys(name, one) for one in (StartedJobRegistry, FailedJobRegistry))
        lines = [f"{keys.fair_queue(name)}{end}" for end in ("", *(f":{band}" for band in BANDS))]
        forgotten = self._forget(
            keys=[
                *(keys.PRIVATE_POOLS, keys.credentials(name), keys.credential(credential_id), keys.fingerprints(name)),
                *(keys.history(credential_id), keys.LAST_USED, Queue.redis_queues_keys, *queues),
                *(*started, *failed, *lines),
                *(
                    keys.idle_workers(name),
                    keys.served_jobs(name),
                    keys.breaker(name),
                    keys.probe(name),
                    keys.models(name),
                ),
            ],
            args=[name, credential_id, unused_since, caller_id(credential_id), Job.key_for(""), Result.get_key("")],
        )
        return bool(forgotten)

    def forget_idle(self, idle: Callable[[str], float]) -> list[str]:
        """Forgets those that have not been used for the seconds that `idle` gives; returns them."""
        now = time.time()
        return [name for name in self.list_pools() if self.forget(name, now - max(MIN_IDLE_SECONDS, idle(name)))]


def registry_keys(name: str, kind: type[BaseRegistry]) -> list[str]:
    """RQ's registries of that kind, one for each queue of the pool."""
    return [str(kind.key_template.format(queue(name))) for queue in BANDS.values()]


def caller_id(credential_id: str) -> str:
    """What stands in the request log in place of an API key's id."""
    return f"private-{credential_id}"


def remove_credential(redis: Redis, pool: str, credential_id: str) -> bool:
    """Forgets a credential of whatever pool, with all that belongs to it; False when there is none."""
    if names.is_private(pool) and PrivateCredentials(redis).forget(pool):
        return True
    return Credentials(redis).remove(pool, credential_id)


def list_all_pools(redis: Redis, configured: Iterable[str]) -> list[str]:
    """The configured pools, and those of private credentials, for who looks after all credentials."""
    pools = list(configured)
    return [*pools, *(one for one in PrivateCredentials(redis).list_pools() if names.configured_pool(one) in pools)]
