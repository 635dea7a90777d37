"""Parts as files in a directory."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from shared.files.directory_store import DirectoryStore
from shared.files.part_store import FileStoreDown, FileStoreFull, PartNotFound


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "files")


def test_part_is_read_as_it_was_put(store: DirectoryStore) -> None:
    store.put("file-a/000000", b"0123456789")
    assert store.get("file-a/000000") == b"0123456789"
    assert store.get("file-a/000000", 2, 5) == b"234"
    assert store.get("file-a/000000", 8) == b"89"


def test_part_put_again_is_replaced(store: DirectoryStore) -> None:
    store.put("file-a/000000", b"old")
    store.put("file-a/000000", b"new")
    assert store.get("file-a/000000") == b"new"
    assert [part.name for part in store.list()] == ["file-a/000000"]


def test_others_on_the_machine_cannot_read_it(store: DirectoryStore, tmp_path: Path) -> None:
    store.put("file-a/000000", b"x")
    modes = [oct(path.stat().st_mode & 0o777) for path in sorted((tmp_path / "files").rglob("*"))]
    assert modes == ["0o700", "0o600"]
    assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700


def test_missing_part_is_an_error(store: DirectoryStore) -> None:
    with pytest.raises(PartNotFound):
        store.get("file-a/000000")


def test_deleting_leaves_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    store.put("file-a/000000", b"x")
    store.delete("file-a/000000")
    store.delete("file-a/000000")
    assert list((tmp_path / "files").iterdir()) == []


def test_parts_are_listed_by_prefix(store: DirectoryStore) -> None:
    for name in ("file-a/000000", "file-a/000001", "file-ab/000000"):
        store.put(name, b"x")
    assert {part.name for part in store.list("file-a/")} == {"file-a/000000", "file-a/000001"}
    assert {part.name for part in store.list("file-a")} == {"file-a/000000", "file-a/000001", "file-ab/000000"}
    assert {part.name for part in store.list("file-a/000001")} == {"file-a/000001"}


def test_list_of_an_absent_directory_is_empty(store: DirectoryStore) -> None:
    assert list(store.list()) == []


def test_part_lists_when_it_was_put(store: DirectoryStore, tmp_path: Path) -> None:
    store.put("file-a/000000", b"x")
    os.utime(tmp_path / "files/file-a/000000", (1000, 1000))
    assert [part.modified_at for part in store.list()] == [1000]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_nothing(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(FileStoreFull):
        store.put("file-a/000000", b"x")
    assert list(store.list()) == []


@pytest.mark.parametrize("directory", ["a file in its place", "/proc/none"])
def test_directory_that_cannot_be_made_is_an_error(tmp_path: Path, directory: str) -> None:
    (tmp_path / "a file in its place").touch()
    store = DirectoryStore(tmp_path / directory)
    with pytest.raises(FileStoreDown):
        store.put("file-a/000000", b"x")


def test_directory_that_goes_while_a_part_is_put_is_an_error(store: DirectoryStore, tmp_path: Path) -> None:
    store.put("file-a/000000", b"x")
    folder = tmp_path / "files/file-a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda *_: shutil.rmtree(folder) or 1)
        with pytest.raises(FileStoreDown):
            store.put("file-a/000001", b"x")
