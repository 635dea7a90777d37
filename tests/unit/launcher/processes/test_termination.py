"""Processes that a killed farm left behind are stopped."""

import subprocess
import sys
import time

import psutil

from launcher.processes.data_dir import FarmRecord
from launcher.processes.termination import get_create_time, stop_leftovers


def test_leftovers_are_stopped_but_a_reused_process_id_is_left_alone():
    leftover = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    processes = {str(leftover.pid): get_create_time(leftover.pid), str(other.pid): get_create_time(other.pid) - 100}
    assert stop_leftovers(FarmRecord(0, "", "", time.time(), processes)) == 1
    assert not psutil.pid_exists(leftover.pid)
    leftover.wait()
    assert other.poll() is None
    other.kill()
    other.wait()
