"""The data dir is locked by one farm, whose record it holds."""

from pathlib import Path

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
