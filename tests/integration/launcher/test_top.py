"""`./farm top` shows the queue, what runs, and what the accounts did."""

import json
import os
import pty
import select
import signal
import subprocess
import sys

import pytest
from redis import Redis

from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.protocol.relay_queue import RelayQueue
from tests.builders import build_request
from tests.environment import ROOT
from tests.integration.launcher.conftest import Run
from tests.waiting import eventually


def fill(redis: Redis) -> None:
    _, key = ApiKeys(redis).create("reader")
    Credentials(redis).add("default", "a-token", "first")
    RelayQueue(redis, 10).enqueue(build_request(key=key.id, model="gpt-4"), b"x")


def test_queue_and_accounts_are_printed(redis: Redis, run: Run):
    fill(redis)
    text = run("top").stdout
    assert "1 interactive waiting" in text
    assert "reader" in text
    assert "first" in text
    view = json.loads(run("top", "--json").stdout)
    assert [request["model"] for request in view["queues"][0]["waiting"]] == ["gpt-4"]
    assert "\x1b" not in text
    assert run("top", "--pool", "nothing").exit_code == 1


def read_some(terminal: int) -> bytes:
    """What has been written within a second; b'' for nothing, and when the other end is closed."""
    try:
        return os.read(terminal, 4096) if select.select([terminal], [], [], 1)[0] else b""
    except OSError:
        return b""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_terminal_is_redrawn_and_left_as_it_was(redis: Redis, run: Run, signum: int):
    fill(redis)
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "top", "--interval", "0.2"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", "LINES": "30"},
        stdout=terminal,
    )
    os.close(terminal)
    shown = b""
    while shown.count(b"interactive waiting") < 2:
        shown += read_some(master)
    process.send_signal(signum)
    eventually(lambda: process.poll() is not None)
    while some := read_some(master):
        shown += some
    os.close(master)
    assert process.returncode == 0
    assert shown.startswith(b"\x1b[?1049h")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")
