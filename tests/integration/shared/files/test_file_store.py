"""Files in a directory and a real Redis."""

from pathlib import Path

import pytest
from redis import Redis

from shared import clock, keys
from shared.files.directory_store import DirectoryStore
from shared.files.file_record import new_file_id
from shared.files.file_store import PIECE_BYTES, FileBounds, FileNotFound, Files, TooManyFiles
from shared.files.part_store import PART_BYTES, part_name

DAY = 86_400


@pytest.fixture
def files(redis: Redis, tmp_path: Path) -> Files:
    return Files(redis, DirectoryStore(tmp_path), FileBounds(3 * PART_BYTES, 4, 30 * DAY))


def upload(files: Files, data: bytes = b"line\n", key: str = "k1", purpose: str = "batch") -> str:
    with files.create() as writer:
        writer.write(data)
        return files.commit(writer, key, "a.jsonl", purpose).id


def list_parts(files: Files) -> list[str]:
    return [part.name for part in files.store.list()]


def test_file_is_read_as_it_was_written(files: Files) -> None:
    data = bytes(range(256)) * (PART_BYTES // 256) + b"the rest"
    with files.create() as writer:
        for start in range(0, len(data), 100_001):
            writer.write(data[start : start + 100_001])
        record = files.commit(writer, "k1", "a.jsonl", "batch")
    assert record.parts == [PART_BYTES, 8]
    assert files.get("k1", record.id) == record
    assert b"".join(files.open(record)) == data
    assert max(map(len, files.open(record))) == PIECE_BYTES
    assert b"".join(files.open(record, PART_BYTES - 3, PART_BYTES + 4)) == data[-11:-4]
    assert list(files.open(record, len(data))) == []


def test_file_describes_itself_as_openai_does(files: Files) -> None:
    record = files.get("k1", upload(files))
    assert record.describe() == {
        "id": record.id,
        "object": "file",
        "bytes": 5,
        "created_at": record.created_at,
        "expires_at": record.created_at + 30 * DAY,
        "filename": "a.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert abs(record.created_at - clock.now()) < 60


def test_empty_file_has_no_parts(files: Files) -> None:
    record = files.get("k1", upload(files, b""))
    assert (record.parts, list(files.open(record))) == ([], [])


def test_file_belongs_to_its_key(files: Files) -> None:
    file_id = upload(files)
    with pytest.raises(FileNotFound):
        files.get("k2", file_id)
    assert files.list("k2") == []


def test_upload_that_breaks_off_leaves_nothing(files: Files, redis: Redis) -> None:
    with files.create() as writer:
        writer.write(bytes(PART_BYTES + 1))
        assert len(list_parts(files)) == 1
    assert list_parts(files) == []
    assert redis.keys("farm:file*") == []


def test_key_has_bounded_bytes(files: Files, redis: Redis) -> None:
    first = upload(files, bytes(2 * PART_BYTES))
    with pytest.raises(TooManyFiles):
        files.check_room("k1", PART_BYTES + 1)
    with pytest.raises(TooManyFiles):
        upload(files, bytes(PART_BYTES + 1))
    assert len(list_parts(files)) == 2
    upload(files, bytes(PART_BYTES + 1), key="k2")
    files.delete(files.get("k1", first))
    files.check_room("k1", 3 * PART_BYTES)
    assert redis.hgetall(keys.FILE_BYTES) == {b"k2": b"%d" % (PART_BYTES + 1)}


def test_key_has_a_bounded_number_of_files(files: Files) -> None:
    for _ in range(4):
        upload(files)
    with pytest.raises(TooManyFiles):
        files.check_room("k1", 0)
    with pytest.raises(TooManyFiles):
        upload(files)
    assert len(list_parts(files)) == 4


def test_file_of_parts_that_the_farm_has_put_is_not_bounded(files: Files, redis: Redis) -> None:
    file_id, sizes = new_file_id(), [PART_BYTES] * 4
    redis.zadd(keys.RESERVED_FILES, {file_id: clock.now() + DAY})
    for number, size in enumerate(sizes):
        files.store.put(part_name(file_id, number), bytes(size))
    record = files.create_from_parts(file_id, "k1", "out.jsonl", "batch_output", sizes)
    assert record.size == 4 * PART_BYTES == sum(map(len, files.open(record)))
    assert files.create_from_parts(file_id, "k1", "out.jsonl", "batch_output", sizes) == record
    assert redis.hget(keys.FILE_BYTES, "k1") == b"%d" % record.size
    assert redis.zcard(keys.RESERVED_FILES) == 0


def test_deleted_file_is_gone(files: Files, redis: Redis) -> None:
    record = files.get("k1", upload(files))
    assert files.delete(record)
    assert not files.delete(record)
    assert list_parts(files) == []
    assert redis.keys("farm:file*") == []


def test_list_has_pages_in_both_orders(files: Files) -> None:
    ids = [upload(files) for _ in range(3)]
    upload(files, key="k2")
    assert [file.id for file in files.list("k1", order="asc")] == ids
    assert [file.id for file in files.list("k1")] == ids[::-1]
    assert [file.id for file in files.list("k1", ids[0], 1, order="asc")] == ids[1:2]
    assert [file.id for file in files.list("k1", ids[2], 2)] == [ids[1], ids[0]]
    assert len(files.list()) == 4
    with pytest.raises(FileNotFound):
        files.list("k1", "file-unknown")


def test_list_finds_files_of_a_purpose_behind_many_others(redis: Redis, tmp_path: Path) -> None:
    files = Files(redis, DirectoryStore(tmp_path), FileBounds(10**9, 1000, DAY))
    output = files.create_from_parts(new_file_id(), "k1", "o", "batch_output", []).id
    for _ in range(150):
        files.create_from_parts(new_file_id(), "k1", "i", "batch", [])
    assert [file.id for file in files.list("k1", limit=1, purpose="batch_output")] == [output]


def test_expired_file_is_found_no_more(files: Files) -> None:
    with files.create() as writer:
        record = files.commit(writer, "k1", "a", "batch", -1)
    assert files.find(record.id) is None
    assert files.list("k1") == []


def test_record_that_cannot_be_read_is_left_out(files: Files, redis: Redis) -> None:
    file_id = upload(files)
    redis.hset(keys.file(file_id), "size", "many")
    assert files.find(file_id) is None
    assert files.list("k1") == []
