"""What is due is deleted, and nothing else."""

import os
import time
from pathlib import Path

import gevent
import pytest
from redis import Redis

from shared import clock, keys
from shared.api_keys.store import ApiKeys
from shared.credentials.private import PrivateCredentials, caller_id
from shared.files.directory_store import DirectoryStore
from shared.files.file_record import new_file_id
from shared.files.file_store import FileBounds, Files
from shared.files.part_store import FileStoreDown, FileStoreFull, part_name
from shared.files.store_health import read_health, report_failure
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


def upload(files: Files, key: str = "k1", ttl_seconds: float = DAY) -> str:
    with files.create() as writer:
        writer.write(b"{}")
        return files.commit(writer, key, "a", "batch", ttl_seconds).id


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


def test_files_of_a_revoked_key_are_deleted(retention: FileRetention, files: Files, redis: Redis):
    api_keys = ApiKeys(redis)
    (_, revoked), (_, disabled) = api_keys.create("a"), api_keys.create("b", enabled=False)
    upload(files, revoked.id)
    kept = upload(files, disabled.id)
    api_keys.revoke(revoked.id)
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == {kept}


@pytest.mark.usefixtures("unsealer")
def test_files_of_a_forgotten_caller_are_deleted(retention: FileRetention, files: Files, redis: Redis):
    private_credentials = PrivateCredentials(redis)
    forgotten, present = (private_credentials.add("default", token, 2) for token in ("one", "other"))
    upload(files, caller_id(private_credential_id(forgotten)))
    kept = upload(files, caller_id(private_credential_id(present)))
    private_credentials.forget(forgotten)
    retention.delete_due(is_sweeping=False)
    assert list_ids(files) == {kept}


def test_only_old_parts_of_no_file_are_swept(retention: FileRetention, files: Files, tmp_path: Path):
    put_parts(files, tmp_path, ORPHAN_SECONDS + 60)
    recent = put_parts(files, tmp_path, ORPHAN_SECONDS - 600)
    reserved = put_parts(files, tmp_path, ORPHAN_SECONDS + 60)
    files.reserve(reserved, clock.now() + DAY)
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


def test_reservation_that_is_over_protects_nothing(retention: FileRetention, files: Files, tmp_path: Path):
    files.reserve(put_parts(files, tmp_path, ORPHAN_SECONDS + 60), clock.now() - 1)
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


def test_store_is_looked_at_by_a_front_without_the_lease_too(
    retention: FileRetention, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    redis.set(keys.FILES_LEASE, "a front that was killed")
    monkeypatch.setattr("web.files.retention.PROBE_SECONDS", 0.01)
    report_failure(redis, FileStoreDown("away"))
    running = gevent.spawn(retention.run)
    eventually(lambda: read_health(redis).state == "ok")
    running.kill()
