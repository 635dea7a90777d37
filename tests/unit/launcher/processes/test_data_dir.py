"""The data dir is locked by one farm, whose record it holds."""

import fcntl
from pathlib import Path
from typing import IO

import pytest

from launcher.processes.data_dir import DataDir, FarmRecord


def test_lock_is_exclusive_and_unlock_leaves_no_files(tmp_path: Path):
    first, second = DataDir(str(tmp_path / "d")), DataDir(str(tmp_path / "d"))
    assert first.lock()
    assert not second.lock()
    assert second.is_locked()
    first.unlock()
    assert not second.is_locked()
    assert list((tmp_path / "d").iterdir()) == []


def test_record_is_read_back_and_an_unreadable_one_is_none(tmp_path: Path):
    data = DataDir(str(tmp_path))
    assert data.read_record() is None
    record = FarmRecord(1, "http://x", "unix://y", 2.0, {"3": 4.0})
    data.write_record(record)
    assert data.read_record() == record
    (tmp_path / "farm.json").write_text("{")
    assert data.read_record() is None


def test_a_lock_file_that_is_removed_while_it_is_opened_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A farm that ends between another's `open` and `flock` takes its lock file with it."""
    first, second, third = (DataDir(str(tmp_path)) for _ in range(3))
    assert first.lock()
    flock = fcntl.flock

    def unlock_first(file: IO[str], operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        first.unlock()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", unlock_first)
    assert second.lock()
    assert not third.lock()
    second.unlock()
