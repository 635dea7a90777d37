"""The supervisor restarts worker processes that die, and replaces all of them on SIGHUP."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.waiting import eventually

SCRIPT = """
import os, sys, time
from workers.supervisor import Supervisor

def serve(spawn_info):
    exec(sys.argv[1])
    return 0

sys.exit(Supervisor(serve, 2).run())
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


RELOADING_SCRIPT = """
import os, sys, time
from pathlib import Path
from workers.supervisor import Supervisor
home = Path(sys.argv[1])

def serve(generation):
    def live(spawn_info):
        (home / f"{generation}-{os.getpid()}").touch()
        time.sleep(60)
    return live

def reload_settings():
    return serve("new") if (home / "good").exists() else None

sys.exit(Supervisor(serve("old"), 2, reload_settings).run())
"""


def test_sighup_starts_new_processes_before_the_old_ones_end(tmp_path: Path):
    supervisor = subprocess.Popen([sys.executable, "-c", RELOADING_SCRIPT, str(tmp_path)])

    def pids(generation: str) -> list[int]:
        return [int(name.rpartition("-")[2]) for name in os.listdir(tmp_path) if name.startswith(generation)]

    old = eventually(lambda: len(pids("old")) == 2 and pids("old"))
    supervisor.send_signal(signal.SIGHUP)
    (tmp_path / "good").touch()
    supervisor.send_signal(signal.SIGHUP)
    new = eventually(lambda: len(pids("new")) == 2 and pids("new"))
    assert all(Path(f"/proc/{pid}").exists() for pid in old)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old))
    assert all(Path(f"/proc/{pid}").exists() for pid in new)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=10) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in new)


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
