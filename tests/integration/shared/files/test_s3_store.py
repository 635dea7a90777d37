"""Parts in a bucket of a real S3 server, through threads as in a front."""

import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from redis import Redis

from shared.errors import SettingsError
from shared.files import opening
from shared.files.file_store import Files
from shared.files.opening import open_files
from shared.files.part_store import PART_BYTES, FileStoreDown, PartNotFound
from shared.settings.schema import Settings
from tests.environment import free_port
from tests.s3_server import S3Server, run_s3_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def files(server: S3Server, redis: Redis) -> Files:
    files = open_files(Settings(files_url=server.build_url()), redis)
    for part in list(files.store.list()):
        files.store.delete(part.name)
    return files


def test_part_is_read_as_it_was_put(files: Files, server: S3Server):
    files.store.put("file-a/000000", b"0123456789")
    assert files.store.get("file-a/000000") == b"0123456789"
    assert files.store.get("file-a/000000", 2, 5) == b"234"
    assert files.store.get("file-a/000000", 8) == b"89"
    assert (server.directory / "farm/file-a/000000").read_bytes() == b"0123456789"


def test_part_put_again_is_replaced(files: Files):
    files.store.put("file-a/000000", b"old")
    files.store.put("file-a/000000", b"new")
    assert files.store.get("file-a/000000") == b"new"


def test_missing_part_is_an_error_and_may_be_deleted(files: Files):
    with pytest.raises(PartNotFound):
        files.store.get("file-a/000000")
    with pytest.raises(PartNotFound):
        files.store.get("file-a/000000", 0, 5)
    files.store.delete("file-a/000000")


def test_parts_are_listed_by_prefix_with_their_time(files: Files):
    for name in ("file-a/000000", "file-a/000001", "file-ab/000000"):
        files.store.put(name, b"x")
    assert {part.name for part in files.store.list("file-a/")} == {"file-a/000000", "file-a/000001"}
    assert {part.name for part in files.store.list("file-a")} == {"file-a/000000", "file-a/000001", "file-ab/000000"}
    assert {part.name for part in files.store.list("file-a/000001")} == {"file-a/000001"}
    assert all(abs(part.modified_at - time.time()) < 600 for part in files.store.list())


def test_file_is_written_read_and_deleted_while_others_go_on(files: Files, server: S3Server):
    turns = 0

    def count_turns() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0)
            turns += 1

    counting = gevent.spawn(count_turns)
    data = bytes(range(256)) * (PART_BYTES // 256) * 2 + b"the rest"
    with files.create() as writer:
        writer.write(data)
        record = files.commit(writer, "k1", "a.jsonl", "batch")
    assert b"".join(files.open(record)) == data
    files.delete(record)
    counting.kill()
    assert turns > 10
    assert list(files.store.list()) == []
    assert [path for path in server.directory.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", ["nobody listens", "wrong secret", "no bucket"])
def test_store_that_is_away_is_an_error_without_secrets(server: S3Server, redis: Redis, kind: str):
    url = {
        "nobody listens": server.build_url().replace(f":{server.port}", f":{free_port()}"),
        "wrong secret": server.build_url(secret="another-secret"),
        "no bucket": server.build_url(bucket="absent"),
    }[kind]
    store = open_files(Settings(files_url=url), redis).store
    with pytest.raises(FileStoreDown) as caught:
        store.put("file-a/000000", b"x")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_client_that_is_not_installed_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, redis: Redis):
    def fail(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(opening.importlib, "import_module", fail)
    with pytest.raises(SettingsError, match=r"requirements-s3\.lock"):
        open_files(Settings(files_url="s3://bucket"), redis)


def test_directory_of_the_settings_is_used(redis: Redis, tmp_path: Path):
    for settings in (Settings(data_dir=str(tmp_path)), Settings(files_url=f"file://{tmp_path}/other")):
        open_files(settings, redis).store.put("file-a/000000", b"x")
    assert (tmp_path / "files/file-a/000000").read_bytes() == (tmp_path / "other/file-a/000000").read_bytes() == b"x"
