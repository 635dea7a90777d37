"""Removes the record of a batch before its time."""

from redis import Redis

from shared import keys
from shared.batches.batch import Batch
from shared.batches.batch_store import Batches
from shared.errors import Conflict


def remove_batch(redis: Redis, batch_id: str) -> Batch:
    """Its files stay. Raises NotFound, Conflict while the batch has not ended, RedisError."""
    batch = Batches(redis).get(batch_id)
    if batch.is_unfinished:
        raise Conflict(f"a batch with status {batch.status!r} can't be removed: cancel it first")
    # Nothing changes a batch that has ended, so there is nothing to check again.
    with redis.pipeline() as pipe:
        pipe.delete(keys.batch(batch.id))
        pipe.zrem(keys.batches(batch.key), batch.id)
        pipe.zrem(keys.BATCHES, batch.id)
        pipe.execute()
    return batch
