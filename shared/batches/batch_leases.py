"""Which front runs which batch: a lease for each batch."""

from collections.abc import Sequence

from redis import Redis

from shared import keys
from shared.live_fronts import find_gone_fronts
from shared.redis_connection.lease import NOT_HELD, build_lease

#: Milliseconds after which another front may take a batch over whose front does not renew its lease.
LEASE_MS = 10_000


class BatchLeases:
    """All methods raise RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._hold = build_lease(redis)

    def hold(self, batch_id: str, holder: str) -> bool:
        """Takes or renews the lease."""
        return self._hold(keys.batch_lease(batch_id), holder, LEASE_MS) != NOT_HELD

    def take(self, batch_ids: Sequence[str], holder: str, most: int) -> list[str]:
        """Takes up to `most` leases that no front has, or one that has ended; returns the batches."""
        free = list(self.find_free(batch_ids, holder).items())[: max(most, 0)]
        return [id_ for id_, owner in free if self._hold(keys.batch_lease(id_), holder, LEASE_MS, owner) != NOT_HELD]

    def find_free(self, batch_ids: Sequence[str], holder: str) -> dict[str, str]:
        """Those of the batches that `holder` may take -> who has the lease: a front that has ended, '' for nobody."""
        leases = self._redis.mget([keys.batch_lease(id_) for id_ in batch_ids]) if batch_ids else []
        owners = {id_: owner.decode() if owner else "" for id_, owner in zip(batch_ids, leases, strict=True)}
        gone = find_gone_fronts(self._redis, sorted({owner for owner in owners.values() if owner})) | {"", holder}
        return {id_: owner for id_, owner in owners.items() if owner in gone}

    def give_up(self, batch_id: str, holder: str) -> None:
        self._hold(keys.batch_lease(batch_id), holder, 0)
