"""The supervisor restarts worker processes that die, and replaces all of them on SIGHUP."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.waiting import eventually

BEAT = """
import time
from workers import freeze_watch
from workers.freeze_watch import BEAT_SECONDS
freeze_watch.KILL_AFTER_SECONDS = 3.0

def beat_forever(spawn_info):
    while True:
        spawn_info.heartbeat.beat()
        time.sleep(BEAT_SECONDS)
"""

SCRIPT = f"""{BEAT}
import os, sys
from workers.supervisor import ProcessPlan, Supervisor

def serve(spawn_info):
    exec(sys.argv[1])
    return 0

def serve_refresher(spawn_info):
    spawn_info.ready.set()
    beat_forever(spawn_info)

sys.exit(Supervisor(ProcessPlan(serve, 2, 30, 900, serve_refresher)).run())
"""


def supervise(child: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", SCRIPT, child], stderr=subprocess.PIPE, text=True)


def test_dead_child_is_restarted_and_all_end_with_the_supervisor(tmp_path: Path):
    child = f"import os, time; open(r'{tmp_path}/' + str(os.getpid()), 'w'); time.sleep(60)"
    supervisor = supervise(child)
    first = eventually(lambda: len(os.listdir(tmp_path)) == 2 and os.listdir(tmp_path))
    os.kill(int(first[0]), signal.SIGKILL)
    children = eventually(lambda: len(os.listdir(tmp_path)) == 3 and os.listdir(tmp_path))
    supervisor.send_signal(signal.SIGTERM)
    _, errors = supervisor.communicate(timeout=10)
    assert supervisor.returncode == 0
    assert "restarting it" in errors
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


RELOADING_SCRIPT = f"""{BEAT}
import os, sys
from pathlib import Path
from workers.supervisor import EXIT_MISCONFIGURED, ProcessPlan, Supervisor
home = Path(sys.argv[1])

def plan(generation, count):
    def serve(spawn_info):
        (home / f"{{generation}}-{{os.getpid()}}").write_text(str(spawn_info.may_wait))
        if generation == "bad":
            return EXIT_MISCONFIGURED
        while not (home / "ready").exists():
            time.sleep(0.01)
        spawn_info.ready.set()
        time.sleep(60)
    return ProcessPlan(serve, count, 30, 900, serve_refresher)

def serve_refresher(spawn_info):
    (home / f"refresher-{{os.getpid()}}").touch()
    spawn_info.ready.set()
    beat_forever(spawn_info)

def reload_plan():
    name = (home / "next").read_text()
    return plan(name, 3) if name else None

(home / "ready").touch()
(home / "next").touch()
sys.exit(Supervisor(plan("old", 2), reload_plan).run())
"""


class ReloadingSupervisor:
    """A supervisor whose processes write their pids into a directory, and are ready when its file `ready` exists."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", RELOADING_SCRIPT, str(home)], stderr=subprocess.PIPE, text=True
        )
        self.old = eventually(lambda: len(self.pids("old")) == 2 and self.pids("old"))

    def pids(self, generation: str) -> list[int]:
        return [int(name.rpartition("-")[2]) for name in os.listdir(self.home) if name.startswith(f"{generation}-")]

    def alive(self, pids: list[int]) -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def reload(self, generation: str) -> None:
        (self.home / "next").write_text(generation)
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> str:
        """Returns what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return errors


def test_new_processes_are_ready_before_the_old_ones_end(tmp_path: Path):
    supervisor = ReloadingSupervisor(tmp_path)
    supervisor.reload("")
    (tmp_path / "ready").unlink()
    supervisor.reload("new")
    new = eventually(lambda: len(supervisor.pids("new")) == 3 and supervisor.pids("new"))
    assert supervisor.alive(supervisor.old) == supervisor.old
    (tmp_path / "ready").touch()
    eventually(lambda: not supervisor.alive(supervisor.old))
    assert supervisor.alive(new) == new
    assert [(tmp_path / f"old-{pid}").read_text() for pid in supervisor.old] == ["False"] * 2
    assert [(tmp_path / f"new-{pid}").read_text() for pid in new] == ["True"] * 3, "an absent Redis is waited for"
    assert "farm: reloaded" in supervisor.stop()
    assert not supervisor.alive(new)


def test_old_processes_stay_when_new_ones_are_misconfigured(tmp_path: Path):
    supervisor = ReloadingSupervisor(tmp_path)
    supervisor.reload("bad")
    bad = eventually(lambda: supervisor.pids("bad"))
    eventually(lambda: not supervisor.alive(bad))
    # A later reload shows that the supervisor has handled the failed one.
    supervisor.reload("new")
    new = eventually(lambda: len(supervisor.pids("new")) == 3 and supervisor.pids("new"))
    eventually(lambda: not supervisor.alive(supervisor.old))
    assert supervisor.alive(new) == new
    assert "not reloaded, the settings are unchanged" in supervisor.stop()


def test_second_reload_replaces_processes_that_never_became_ready(tmp_path: Path):
    supervisor = ReloadingSupervisor(tmp_path)
    (tmp_path / "ready").unlink()
    supervisor.reload("stuck")
    stuck = eventually(lambda: len(supervisor.pids("stuck")) == 3 and supervisor.pids("stuck"))
    supervisor.reload("new")
    eventually(lambda: not supervisor.alive(stuck))
    assert supervisor.alive(supervisor.old) == supervisor.old
    (tmp_path / "ready").touch()
    eventually(lambda: not supervisor.alive(supervisor.old))
    supervisor.stop()


def test_restarted_child_is_told_the_id_of_its_predecessor(tmp_path: Path):
    child = f"import os, time; open(r'{tmp_path}/' + str(os.getpid()), 'w').write(repr(spawn_info)); time.sleep(60)"
    supervisor = supervise(child)
    first = eventually(lambda: len(os.listdir(tmp_path)) == 2 and sorted(os.listdir(tmp_path)))
    eventually(lambda: all((tmp_path / pid).read_text() for pid in first))
    assert all("predecessor='', is_first=True" in (tmp_path / pid).read_text() for pid in first)
    birth_id = (tmp_path / first[0]).read_text().split("'")[1]
    assert first[0] in birth_id
    os.kill(int(first[0]), signal.SIGKILL)
    second = eventually(lambda: set(os.listdir(tmp_path)) - set(first)).pop()
    birth = eventually((tmp_path / second).read_text)
    assert f"predecessor='{birth_id}', is_first=False" in birth
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=10)


def test_misconfigured_child_is_not_restarted():
    supervisor = supervise("import sys; sys.exit(2)")
    timer = threading.Timer(10, supervisor.kill)
    timer.start()
    supervisor.communicate()
    timer.cancel()
    assert supervisor.returncode == 1


OUTLIVING_SCRIPT = f"""{BEAT}
import os, signal, sys
from pathlib import Path
from workers.process_slot import RETIRE_SIGNAL
from workers.supervisor import ProcessPlan, Supervisor
home = Path(sys.argv[1])

def write(text):
    with (home / "events").open("a") as file:
        file.write(text + "\\n")

def end_slowly(signum, frame):
    while not (home / "may-end").exists():
        time.sleep(0.01)
    write("worker ends")
    os._exit(0)

def serve(spawn_info):
    signal.signal(signal.SIGTERM, end_slowly)
    signal.signal(RETIRE_SIGNAL, end_slowly)
    spawn_info.ready.set()
    time.sleep(600)

def serve_refresher(spawn_info):
    def end(signum, frame):
        write("refresher ends")
        os._exit(0)
    signal.signal(RETIRE_SIGNAL, end)
    spawn_info.ready.set()
    write(f"refresher {{os.getpid()}}")
    while not (home / "hang").exists():
        spawn_info.heartbeat.beat()
        time.sleep(BEAT_SECONDS)
    (home / "hang").unlink()
    time.sleep(600)

plan = ProcessPlan(serve, 1, 600, 900, serve_refresher)
sys.exit(Supervisor(plan, lambda: plan).run())
"""


class OutlivedSupervisor:
    """A supervisor whose processes record their ends; worker processes end when the file `may-end` exists."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.process = subprocess.Popen([sys.executable, "-c", OUTLIVING_SCRIPT, str(home)])

    def events(self) -> list[str]:
        file = self._home / "events"
        return file.read_text().splitlines() if file.exists() else []

    def refreshers(self) -> list[int]:
        return [int(event.split()[1]) for event in self.events() if event.split()[1].isdigit()]

    def stop(self) -> list[str]:
        """Returns the events."""
        (self._home / "may-end").touch()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        return self.events()


@pytest.mark.parametrize("failure", ["", "killed", "hangs"])
def test_token_refresher_is_kept_alive_until_the_worker_processes_have_ended(tmp_path: Path, failure: str):
    supervisor = OutlivedSupervisor(tmp_path)
    (refresher,) = eventually(supervisor.refreshers)
    supervisor.process.send_signal(signal.SIGTERM)
    if failure == "killed":
        os.kill(refresher, signal.SIGKILL)
    elif failure:
        (tmp_path / "hang").touch()
    eventually(lambda: len(supervisor.refreshers()) == (2 if failure else 1))
    (tmp_path / "may-end").touch()
    assert supervisor.process.wait(60) == 0
    assert supervisor.events()[-2:] == ["worker ends", "refresher ends"]


def test_reload_starts_a_token_refresher_and_the_old_one_waits_for_its_worker_processes(tmp_path: Path):
    supervisor = OutlivedSupervisor(tmp_path)
    (old,) = eventually(supervisor.refreshers)
    # A signal before the supervisor's handlers are installed would end it.
    os.kill(old, signal.SIGKILL)
    eventually(lambda: len(supervisor.refreshers()) == 2)
    supervisor.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(supervisor.refreshers()) == 3)
    assert "refresher ends" not in supervisor.events()
    (tmp_path / "may-end").touch()
    eventually(lambda: "refresher ends" in supervisor.events())
    assert supervisor.events()[3:5] == ["worker ends", "refresher ends"]
    supervisor.stop()


FREEZING_SCRIPT = f"""{BEAT}
import os, signal, sys
from pathlib import Path
from workers.supervisor import ProcessPlan, Supervisor
home = Path(sys.argv[1])

def serve(spawn_info):
    time.sleep(600)

def serve_refresher(spawn_info):
    (home / f"{{os.getpid()}}").write_text(spawn_info.predecessor)
    spawn_info.heartbeat.beat()
    if not spawn_info.predecessor:
        exec(sys.argv[2])
    (home / f"well-{{os.getpid()}}").touch()
    beat_forever(spawn_info)

sys.exit(Supervisor(ProcessPlan(serve, 1, 30, 900, serve_refresher)).run())
"""


def supervise_freezing(home: Path, action: str) -> "subprocess.Popen[str]":
    """The first token refresher freezes by `action` after a beat; each writes `well-<pid>` when it is well."""
    command = [sys.executable, "-c", FREEZING_SCRIPT, str(home), action]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def end(supervisor: "subprocess.Popen[str]") -> str:
    """Returns what it wrote to stderr."""
    supervisor.send_signal(signal.SIGTERM)
    return supervisor.communicate(timeout=30)[1]


def test_stopped_token_refresher_is_resumed_and_loses_nothing(tmp_path: Path):
    supervisor = supervise_freezing(tmp_path, "os.kill(os.getpid(), signal.SIGSTOP)")
    (well,) = eventually(lambda: list(tmp_path.glob("well-*")))
    assert "frozen for" in end(supervisor)
    assert {file.name for file in tmp_path.iterdir()} == {well.name, well.name.removeprefix("well-")}


def test_token_refresher_that_hangs_is_killed_and_its_successor_knows_it(tmp_path: Path):
    supervisor = supervise_freezing(tmp_path, "time.sleep(600)")
    (well,) = eventually(lambda: list(tmp_path.glob("well-*")))
    assert "killing it" in end(supervisor)
    (hung,) = (file for file in tmp_path.iterdir() if file.name not in (well.name, well.name.removeprefix("well-")))
    assert f"-{hung.name}-" in (tmp_path / well.name.removeprefix("well-")).read_text()
