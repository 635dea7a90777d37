"""What is due is deleted, and nothing else."""

import os
import time
from pathlib import Path

import gevent
import pytest
from redis import Redis

from shared import clock, keys
from shared.api_keys.store import ApiKeys
from shared.batches.batch import Batch, new_batch_id
from shared.batches.batch_store import Batches
from shared.credentials.private import PrivateCredentials, caller_id
from shared.files.directory_store import DirectoryStore
from shared.files.file_record import new_file_id
from shared.files.file_store import FileBounds, FileNotFound, Files
from shared.files.part_store import FileStoreDown, FileStoreFull, part_name
from shared.files.store_health import PROBE, read_health, report_failure
from shared.files.watched_store import WatchedStore
from shared.names import private_credential_id
from tests.waiting import eventually
from web.files.retention import ORPHAN_SECONDS, OWNER, FileRetention

DAY = 86_400


@pytest.fixture
def files(redis: Redis, tmp_path: Path) -> Files:
    return Files(redis, DirectoryStore(tmp_path), FileBounds(10**6, 1000, 30 * DAY))


@pytest.fixture
def retention(redis: Redis, files: Files) -> FileRetention:
    return FileRetention(redis, files, "front")


def upload(files: Files, key: str = "k1", ttl_seconds: float = DAY, content: bytes = b"{}") -> str:
    with files.create() as writer:
        writer.write(content)
        return files.commit(writer, key, "a", "batch", ttl_seconds).id


def expire(redis: Redis, file_id: str) -> None:
    """As if it had been uploaded long ago."""
    redis.hset(keys.file(file_id), "expires_at", int(clock.now()) - 60)
    redis.zadd(keys.EXPIRING_FILES, {file_id: clock.now() - 60})


def create_batch(redis: Redis, file_id: str, key: str = "k1") -> Batch:
    now = int(clock.now())
    results = new_file_id(), new_file_id()
    batch = Batch(new_batch_id(), key, "/v1/completions", file_id, *results, now, "24h", now + DAY)
    Batches(redis).add(batch)
    return batch


def end(redis: Redis, batch: Batch) -> None:
    assert Batches(redis).change(batch, ("validating",), {"status": "cancelled"}, ends=True)


def list_ids(files: Files) -> set[str]:
    return {part.name.partition("/")[0] for part in files.store.list("file-")}


def put_parts(files: Files, tmp_path: Path, age: float) -> str:
    """Parts of no file, put `age` seconds ago."""
    file_id = new_file_id()
    files.store.put(part_name(file_id, 0), b"x")
    at = time.time() - age
    os.utime(tmp_path / part_name(file_id, 0), (at, at))
    return file_id


def test_expired_files_are_deleted(retention: FileRetention, files: Files, redis: Redis):
    kept = upload(files)
    for _ in range(150):
        upload(files, ttl_seconds=-1)
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == {kept}
    assert redis.zrange(keys.FILES, 0, -1) == redis.zrange(keys.files("k1"), 0, -1) == [kept.encode()]
    assert redis.hget(keys.FILE_BYTES, "k1") == b"2"


def test_expired_file_whose_record_cannot_be_read_is_deleted(retention: FileRetention, files: Files, redis: Redis):
    file_id = upload(files, ttl_seconds=-1)
    redis.hset(keys.file(file_id), "parts", "nonsense")
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == set()
    assert redis.keys("farm:file*") == []


def test_input_is_kept_until_all_batches_that_read_it_have_ended(
    retention: FileRetention, files: Files, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("web.files.retention.FILES_AT_ONCE", 2)
    inputs = [upload(files) for _ in range(3)]
    first, *others = [create_batch(redis, file_id) for file_id in (inputs[0], *inputs)]
    for file_id in inputs:
        expire(redis, file_id)
    for _ in range(5):
        upload(files, ttl_seconds=-1)

    retention.delete_due(is_sweeping=True)
    assert list_ids(files) == set(inputs) == {file.id for file in files.list("k1")}
    assert files.get("k1", inputs[0]).describe_for_operators("")["readers"] == [first.id, others[0].id]

    end(redis, others[0])
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == set(inputs)

    for batch in (first, *others[1:]):
        end(redis, batch)
    assert files.list("k1") == []
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == set() and not redis.exists(keys.FILES, keys.EXPIRING_FILES, keys.FILE_BYTES)


def test_batch_is_created_on_an_expired_file_only_while_another_reads_it(
    retention: FileRetention, files: Files, redis: Redis
):
    file_id = upload(files)
    first = create_batch(redis, file_id)
    expire(redis, file_id)
    second = create_batch(redis, file_id)
    end(redis, first)
    end(redis, second)
    with pytest.raises(FileNotFound):
        create_batch(redis, file_id)
    retention.delete_due(is_sweeping=False)
    with pytest.raises(FileNotFound):
        create_batch(redis, file_id)


def test_file_that_is_deleted_is_gone_at_once_though_a_batch_reads_it(files: Files, redis: Redis):
    file_id = upload(files)
    batch = create_batch(redis, file_id)
    assert files.delete(files.get("k1", file_id)) and list_ids(files) == set()
    end(redis, batch)
    assert not redis.exists(keys.file(file_id), keys.FILES)


def test_batch_whose_record_was_lost_keeps_no_file(retention: FileRetention, files: Files, redis: Redis):
    file_id = upload(files)
    batch = create_batch(redis, file_id)
    expire(redis, file_id)
    redis.delete(keys.batch(batch.id))
    Batches(redis).forget(batch.id)
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == set()


def test_files_of_a_revoked_key_are_deleted(retention: FileRetention, files: Files, redis: Redis):
    """Also one that an unfinished batch reads, and one whose record was lost."""
    api_keys = ApiKeys(redis)
    (_, revoked), (_, disabled) = api_keys.create("a"), api_keys.create("b", enabled=False)
    create_batch(redis, upload(files, revoked.id), revoked.id)
    redis.delete(keys.file(upload(files, revoked.id)))
    kept = upload(files, disabled.id)
    api_keys.revoke(revoked.id)
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == {kept}
    assert not redis.exists(keys.files(revoked.id))


@pytest.mark.usefixtures("unsealer")
def test_files_of_a_forgotten_caller_are_deleted(retention: FileRetention, files: Files, redis: Redis):
    private_credentials = PrivateCredentials(redis)
    forgotten, present = (private_credentials.add("default", token, 2) for token in ("one", "other"))
    upload(files, caller_id(private_credential_id(forgotten)))
    kept = upload(files, caller_id(private_credential_id(present)))
    private_credentials.forget(forgotten)
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == {kept}


def test_empty_files_of_a_revoked_key_are_deleted(retention: FileRetention, files: Files, redis: Redis):
    _, key = ApiKeys(redis).create("a")
    upload(files, key.id, content=b"")
    files.delete(files.get(key.id, upload(files, key.id)))
    ApiKeys(redis).revoke(key.id)
    retention.delete_due(is_sweeping=False)
    assert redis.keys("farm:file*") == []


def test_only_old_parts_of_no_file_are_swept(retention: FileRetention, files: Files, redis: Redis, tmp_path: Path):
    put_parts(files, tmp_path, ORPHAN_SECONDS + 60)
    recent = put_parts(files, tmp_path, ORPHAN_SECONDS - 600)
    reserved = put_parts(files, tmp_path, ORPHAN_SECONDS + 60)
    redis.zadd(keys.RESERVED_FILES, {reserved: clock.now() + DAY})
    kept = upload(files)
    for part in (tmp_path / kept).iterdir():
        os.utime(part, (1000, 1000))
    retention.delete_due(is_sweeping=True)
    assert list_ids(files) == {recent, reserved, kept}


def test_old_parts_are_kept_while_one_is_new(retention: FileRetention, files: Files, tmp_path: Path):
    file_id = put_parts(files, tmp_path, ORPHAN_SECONDS + 60)
    files.store.put(part_name(file_id, 1), b"x")
    retention.delete_due(is_sweeping=True)
    assert len(list(files.store.list(file_id))) == 2


def test_reservation_that_is_over_protects_nothing(
    retention: FileRetention, files: Files, redis: Redis, tmp_path: Path
):
    redis.zadd(keys.RESERVED_FILES, {put_parts(files, tmp_path, ORPHAN_SECONDS + 60): clock.now() - 1})
    retention.delete_due(is_sweeping=True)
    assert list_ids(files) == set()


def test_store_of_another_farm_is_not_swept(
    retention: FileRetention, files: Files, redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    retention.delete_due(is_sweeping=True)
    file_id = put_parts(files, tmp_path, ORPHAN_SECONDS + 60)
    redis.flushall()
    retention.delete_due(is_sweeping=True)
    assert list_ids(files) == {file_id}
    assert "another farm" in caplog.text
    files.store.delete(OWNER)
    retention.delete_due(is_sweeping=True)
    assert list_ids(files) == set()


def test_full_store_is_freed_of_what_is_due(
    retention: FileRetention, files: Files, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    upload(files, ttl_seconds=-1)
    monkeypatch.setattr("web.files.retention.PROBE_SECONDS", 0.01)
    monkeypatch.setattr("web.files.retention.PROBES_PER_ROUND", 1)
    report_failure(redis, FileStoreFull("full"))

    def refuse(name: str, data: bytes) -> None:
        raise FileStoreFull(f"{name} has {len(data)} bytes")

    monkeypatch.setattr(files.store, "put", refuse)
    running = gevent.spawn(retention.run)
    eventually(lambda: not list_ids(files))
    running.kill()
    assert read_health(redis).state == "full"


def test_new_front_finds_out_that_nothing_can_be_stored(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    store = WatchedStore(DirectoryStore(tmp_path / "file" / "directory"), redis)
    monkeypatch.setattr("web.files.retention.PROBE_SECONDS", 0.01)
    running = gevent.spawn(FileRetention(redis, Files(redis, store, FileBounds(10**6, 1000, DAY)), "front").run)
    eventually(lambda: read_health(redis).state == "away")
    running.kill()


def test_store_that_is_well_is_tried_once(retention: FileRetention, files: Files, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("web.files.retention.PROBE_SECONDS", 0.01)
    monkeypatch.setattr("shared.files.store_health.PROBE_MS", 1)
    tried, put = [], files.store.put
    monkeypatch.setattr(files.store, "put", lambda name, data: tried.append(name) or put(name, data))
    running = gevent.spawn(retention.run)
    gevent.sleep(0.3)
    running.kill()
    assert tried.count(PROBE) == 1


def test_store_is_looked_at_by_a_front_without_the_lease_too(
    retention: FileRetention, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    redis.set(keys.FILES_LEASE, "a front that was killed")
    monkeypatch.setattr("web.files.retention.PROBE_SECONDS", 0.01)
    report_failure(redis, FileStoreDown("away"))
    running = gevent.spawn(retention.run)
    eventually(lambda: read_health(redis).state == "ok")
    running.kill()
