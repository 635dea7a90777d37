import subprocess
import sys
import time
from pathlib import Path

import psutil

from launcher.processes.data_dir import DataDir, FarmRecord
from launcher.processes.termination import get_create_time, stop_leftovers


def test_one_farm_has_the_lock_and_leaves_nothing_behind(tmp_path: Path):
    first, second = DataDir(str(tmp_path / "d")), DataDir(str(tmp_path / "d"))
    assert first.lock()
    assert not second.lock()
    assert second.is_locked()
    first.unlock()
    assert not second.is_locked()
    assert list((tmp_path / "d").iterdir()) == []


def test_a_record_survives_and_a_broken_one_is_none(tmp_path: Path):
    data = DataDir(str(tmp_path))
    assert data.read_record() is None
    running = FarmRecord(1, "http://x", "unix://y", 2.0, {"3": 4.0})
    data.write_record(running)
    assert data.read_record() == running
    (tmp_path / "farm.json").write_text("{")
    assert data.read_record() is None


def test_leftovers_are_ended_but_not_a_process_that_took_their_number():
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    processes = {str(left.pid): get_create_time(left.pid), str(other.pid): get_create_time(other.pid) - 100}
    assert stop_leftovers(FarmRecord(0, "", "", time.time(), processes)) == 1
    assert not psutil.pid_exists(left.pid)
    left.wait()
    assert other.poll() is None
    other.kill()
    other.wait()
