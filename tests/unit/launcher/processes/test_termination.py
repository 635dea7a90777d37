"""Processes that a killed farm left behind are stopped, and so are the children of its killed processes."""

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from launcher.processes.data_dir import FarmRecord
from launcher.processes.process_group import ProcessGroup, start_in_session
from launcher.processes.termination import find_orphans, get_create_time, has_ended, stop_leftovers
from tests.waiting import eventually

#: Forks a child, as the supervisor and gunicorn's master do.
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", sys.argv[1]])
time.sleep(60)
"""


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


def start_parent(name: str = "workers") -> "subprocess.Popen[bytes]":
    return start_in_session([sys.executable, "-c", PARENT, name], {})


def kill_parent(parent: "subprocess.Popen[bytes]") -> psutil.Process:
    """Returns the orphan."""
    (child,) = eventually(lambda: psutil.Process(parent.pid).children())
    parent.kill()
    parent.wait()
    return child


@pytest.fixture
def group() -> Iterator[ProcessGroup]:
    group = ProcessGroup()
    yield group
    group.stop(0, lambda: False)


def test_orphans_of_a_killed_process_are_known_until_they_end(group: ProcessGroup):
    parent = group.add("worker", start_parent)
    orphan = kill_parent(parent)
    assert group.restart_dead(lambda _: None)
    assert not group.forget_ended_sessions()
    assert list(group.orphaned_sessions) == [parent.pid]
    orphan.kill()
    eventually(group.forget_ended_sessions)
    assert group.orphaned_sessions == {}


def test_orphans_of_a_killed_process_end_with_the_farm(group: ProcessGroup):
    orphan = kill_parent(group.add("worker", start_parent))
    group.restart_dead(lambda _: None)
    group.stop(0, lambda: False)
    assert has_ended(orphan.pid)


@pytest.mark.parametrize("field", ["processes", "orphaned_sessions"])
def test_orphans_of_a_farm_that_was_killed_with_its_processes_are_stopped(field: str):
    parent = start_parent()
    sessions = {str(parent.pid): get_create_time(parent.pid)}
    orphan = kill_parent(parent)
    assert stop_leftovers(FarmRecord(0, "", "", time.time(), **{field: sessions})) == 1
    assert has_ended(orphan.pid)


@pytest.mark.parametrize(("name", "age"), [("other", 0.0), ("workers", 1e9)])
def test_processes_of_a_session_that_was_never_the_farms_are_left_alone(name: str, age: float):
    """Another session has got the id: it runs something else, or the machine has booted since."""
    parent = start_parent(name)
    created = get_create_time(parent.pid)
    orphan = kill_parent(parent)
    assert find_orphans({parent.pid: created - age}) == []
    orphan.kill()
