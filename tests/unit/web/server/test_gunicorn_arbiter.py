"""gunicorn's master lets new fronts take over from old ones, and keeps the old ones when a new one can't start."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.environment import ROOT, free_port
from tests.waiting import eventually

CONFIG = """
from gevent import monkey
monkey.patch_all()
import os, time
from pathlib import Path
from web.server.gunicorn_arbiter import adopt

home = Path({home!r})

class Settings:
    front_count, drain_seconds = 1, 0.2
    text = previous = "old"
    def load(self):
        self.previous, self.text = self.text, (home / "next").read_text()
    def revert(self):
        self.text = self.previous

is_retiring = False

class Front:
    retire_seconds, drain_seconds = 120.0, 0.2
    is_ready = property(lambda self: settings.text == "old" or (home / "ready").exists())
    connections = None
    def end_live_pages(self):
        global is_retiring
        is_retiring = True
    def hand_over_batches(self):
        (home / "handed-over").touch()
    has_detached_work = property(lambda self: (home / "line").exists())
    def begin_shutdown(self): pass
    def end_requests(self): pass

settings = Settings()

def app(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    while environ["PATH_INFO"] == "/live" and not is_retiring:
        yield b"now "
        time.sleep(0.1)
    for _ in range(30 if environ["PATH_INFO"] == "/long" else 1):
        yield settings.text.encode()
        time.sleep(0.1)

def make_app():
    return app

def on_starting(server):
    adopt(server, settings)

def post_worker_init(worker):
    (home / f"{{settings.text}}-{{os.getpid()}}").touch()
    assert settings.text != "broken", "the front can't start"
    worker.front = Front()

bind = "127.0.0.1:{port}"
wsgi_app = "conf:make_app()"
worker_class = "web.server.gunicorn_worker.FarmGunicornWorker"
keepalive = 75
control_socket_disable = True
"""


class Gunicorn:
    """A gunicorn with a small app, which replies with the settings of its front."""

    def __init__(self, home: Path) -> None:
        port = free_port()
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        (home / "conf.py").write_text(CONFIG.format(home=str(home), port=port))
        self.log = home / "log"
        command = [str(Path(sys.executable).with_name("gunicorn")), "-c", "python:conf"]
        environment = {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{ROOT}"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=home, stderr=log)
        eventually(self.is_up)

    def is_up(self) -> bool:
        try:
            return self.get() == "old"
        except requests.RequestException:
            return False

    def get(self) -> str:
        return requests.get(self.url, timeout=10).text

    def pids(self, text: str) -> list[int]:
        return [int(name.rpartition("-")[2]) for name in os.listdir(self.home) if name.startswith(f"{text}-")]

    def reload(self, text: str) -> None:
        (self.home / "next").write_text(text)
        self.process.send_signal(signal.SIGHUP)


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Gunicorn]:
    running = Gunicorn(tmp_path)
    yield running
    running.process.terminate()
    assert running.process.wait(60) == 0, running.log.read_text()


def test_old_front_serves_until_the_new_one_is_ready_and_then_finishes_its_requests(gunicorn: Gunicorn):
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(requests.get(f"{gunicorn.url}/long", timeout=60).text))
    thread.start()
    session = requests.Session()
    session.get(gunicorn.url, timeout=10)
    gunicorn.reload("new")
    eventually(lambda: gunicorn.pids("new"))
    assert gunicorn.get() == "old"
    (gunicorn.home / "ready").touch()
    eventually(lambda: "farm: reloaded" in gunicorn.log.read_text())
    eventually(lambda: gunicorn.get() == "new")
    kept_alive = session.get(gunicorn.url, timeout=10)
    assert (kept_alive.text, kept_alive.headers["connection"]) in (("old", "close"), ("new", "keep-alive"))
    thread.join()
    assert texts == ["old" * 30], "longer than the drain time"
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in gunicorn.pids("old")))
    assert gunicorn.get() == "new"


def test_retiring_front_ends_its_live_pages(gunicorn: Gunicorn):
    with requests.get(f"{gunicorn.url}/live", stream=True, timeout=60) as page:
        pieces = page.iter_content(None)
        seen = next(pieces)
        assert seen.startswith(b"now ")
        (gunicorn.home / "ready").touch()
        gunicorn.reload("new")
        eventually(lambda: gunicorn.get() == "new")
        assert b"".join([seen, *pieces]).endswith(b"now old"), "it would go on for ever"
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in gunicorn.pids("old")))


def test_retiring_front_waits_for_its_lines_of_batches(gunicorn: Gunicorn):
    line = gunicorn.home / "line"
    line.touch()
    (gunicorn.home / "ready").touch()
    (pid,) = gunicorn.pids("old")
    gunicorn.reload("new")
    eventually(lambda: gunicorn.get() == "new")
    assert (gunicorn.home / "handed-over").exists()
    for _ in range(10):
        assert gunicorn.get() == "new" and Path(f"/proc/{pid}").exists()
        time.sleep(0.1)
    line.unlink()
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_old_front_stays_when_the_new_one_cannot_start(gunicorn: Gunicorn):
    gunicorn.reload("broken")
    eventually(lambda: "not reloaded, the settings are unchanged" in gunicorn.log.read_text())
    assert gunicorn.get() == "old"
    (pid,) = gunicorn.pids("old")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(gunicorn.pids("old")) == 2)
    eventually(gunicorn.is_up)
    assert len(gunicorn.pids("broken")) == 1


def read_timer(port: int, peer: int) -> str:
    """The kernel's timer of this connection of a server on 127.0.0.1, as proc_net_tcp.txt numbers them."""
    addresses = [f"0100007F:{number:04X}" for number in (port, peer)]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return next((fields[5][:2] for fields in lines if fields[1:3] == addresses), "")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_idle_connections_are_probed(gunicorn: Gunicorn):
    """So that a caller whose host has vanished is found (timer 2: keepalive)."""
    port = int(gunicorn.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: farm.example\r\n\r\n")
        assert connection.recv(1000)
        eventually(lambda: read_timer(port, connection.getsockname()[1]) == "02")
