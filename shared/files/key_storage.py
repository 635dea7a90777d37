"""What API keys store, against the bounds that all of them have."""

from dataclasses import dataclass

from redis import Redis

from shared import keys
from shared.files.file_store import FileBounds

#: Share of a bound from which a key is short of room.
SCARCE_SHARE = 0.9


@dataclass(frozen=True)
class KeyStorage:
    """The files of one API key."""

    key: str
    files: int
    bytes: int

    def share_of(self, bounds: FileBounds) -> float:
        """The used share of what it may store: of bytes or of files, whichever is larger."""
        return max(self.bytes / bounds.max_bytes, self.files / bounds.max_files)


def read_storage(redis: Redis, key_id: str) -> KeyStorage:
    """Raises RedisError."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.zcard(keys.files(key_id))
        pipe.hget(keys.FILE_BYTES, key_id)
        files, stored = pipe.execute()
    return KeyStorage(key_id, files, int(stored or 0))


def list_storage(redis: Redis, limit: int) -> list[KeyStorage]:
    """The keys that store most bytes, those with most first. Raises RedisError."""
    stored = {key.decode(): int(size) for key, size in redis.hgetall(keys.FILE_BYTES).items()}
    largest = sorted(stored, key=lambda key: (-stored[key], key))[:limit]
    with redis.pipeline(transaction=False) as pipe:
        for key in largest:
            pipe.zcard(keys.files(key))
        counts = pipe.execute()
    return [KeyStorage(key, count, stored[key]) for key, count in zip(largest, counts, strict=True)]
