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

def serve(birth):
    exec(sys.argv[1])
    return 0

sys.exit(Supervisor(serve, 2).run())
"""


def supervise(child: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", SCRIPT, child], stderr=subprocess.PIPE, text=True)


def test_a_child_that_dies_is_started_again_and_all_end_with_their_parent(tmp_path: Path):
    child = f"import os, time; open(r'{tmp_path}/' + str(os.getpid()), 'w'); time.sleep(60)"
    supervisor = supervise(child)
    first = eventually(lambda: len(os.listdir(tmp_path)) == 2 and os.listdir(tmp_path))
    os.kill(int(first[0]), signal.SIGKILL)
    everyone = eventually(lambda: len(os.listdir(tmp_path)) == 3 and os.listdir(tmp_path))
    supervisor.send_signal(signal.SIGTERM)
    _, errors = supervisor.communicate(timeout=10)
    assert supervisor.returncode == 0
    assert "starting it again" in errors
    assert [pid for pid in everyone if Path(f"/proc/{pid}").exists()] == []


def test_who_follows_a_process_that_died_is_told_its_id(tmp_path: Path):
    child = f"import os, time; open(r'{tmp_path}/' + str(os.getpid()), 'w').write(repr(birth)); time.sleep(60)"
    supervisor = supervise(child)
    first = eventually(lambda: len(os.listdir(tmp_path)) == 2 and sorted(os.listdir(tmp_path)))
    eventually(lambda: all((tmp_path / one).read_text() for one in first))
    assert all("predecessor='', first=True" in (tmp_path / one).read_text() for one in first)
    born = (tmp_path / first[0]).read_text().split("'")[1]
    assert first[0] in born
    os.kill(int(first[0]), signal.SIGKILL)
    second = eventually(lambda: set(os.listdir(tmp_path)) - set(first)).pop()
    told = eventually((tmp_path / second).read_text)
    assert f"predecessor='{born}', first=False" in told
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=10)


def test_a_misconfigured_child_is_not_started_again():
    supervisor = supervise("import sys; sys.exit(2)")
    timer = threading.Timer(10, supervisor.kill)
    timer.start()
    supervisor.communicate()
    timer.cancel()
    assert supervisor.returncode == 1
