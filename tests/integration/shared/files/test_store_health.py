"""A store of files that fails is noted for operators, until it takes a whole part again."""

from pathlib import Path

import pytest
from redis import Redis

from shared import keys
from shared.files.directory_store import DirectoryStore
from shared.files.part_store import PART_BYTES, FileStoreDown, FileStoreFull, PartNotFound
from shared.files.store_health import AWAY, FULL, PROBE, STATES, probe, read_health
from shared.files.watched_store import WatchedStore


class FailingStore(DirectoryStore):
    """Fails with an error while it has one; a full one still takes small parts."""

    error: Exception | None = None

    def put(self, name: str, data: bytes) -> None:
        if self.error and len(data) > 100:
            raise self.error
        super().put(name, data)

    def get(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        if self.error:
            raise self.error
        return super().get(name, start, end)


@pytest.fixture
def failing(tmp_path: Path) -> FailingStore:
    return FailingStore(tmp_path)


@pytest.fixture
def store(failing: FailingStore, redis: Redis) -> WatchedStore:
    return WatchedStore(failing, redis)


@pytest.mark.parametrize(("error", "state"), [(FileStoreFull("full"), FULL), (FileStoreDown("away"), AWAY)])
def test_store_that_fails_is_noted_until_it_takes_a_whole_part(
    redis: Redis, failing: FailingStore, store: WatchedStore, error: FileStoreDown, state: str
):
    assert read_health(redis).to_dict() == {"state": "ok", "since": None}
    failing.error = error
    with pytest.raises(FileStoreDown):
        store.put("file-1/000000", bytes(PART_BYTES))
    health = read_health(redis)
    assert (health.state, health.warnings) == (state, [STATES[state]])
    store.put("file-1/000001", b"small")
    probe(redis, store)
    assert read_health(redis) == health
    failing.error = None
    probe(redis, store)
    assert read_health(redis) == health, "the last probe was just now, perhaps by another front"
    redis.delete(keys.FILE_STORE_PROBE)
    probe(redis, store)
    assert read_health(redis).state == "ok"
    assert PROBE not in [part.name for part in store.list()]


def test_store_that_is_read_in_vain_is_noted_and_a_missing_part_is_not(
    redis: Redis, failing: FailingStore, store: WatchedStore
):
    with pytest.raises(PartNotFound):
        store.get("file-1/000000")
    assert read_health(redis).state == "ok"
    failing.error = FileStoreDown("away")
    with pytest.raises(FileStoreDown):
        store.get("file-1/000000")
    assert read_health(redis).state == AWAY


def test_store_that_has_not_failed_is_not_probed(redis: Redis, failing: FailingStore, store: WatchedStore):
    failing.error = FileStoreDown("away")
    probe(redis, store)
    assert read_health(redis).state == "ok"
