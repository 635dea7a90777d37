"""`./farm top` shows the queue, what runs, and what the accounts did."""

import json
import os
import pty
import signal
import subprocess
import sys

from redis import Redis

from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.protocol.relay_queue import RelayQueue
from tests.builders import build_request
from tests.environment import ROOT
from tests.integration.launcher.conftest import Run


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


def test_terminal_is_redrawn_and_left_as_it_was(redis: Redis, run: Run):
    """On a terminal of its own, until Ctrl-C."""
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
        shown += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:
        pass  # Linux: the other end is closed.
    os.close(master)
    assert process.wait(30) == 0
    assert shown.startswith(b"\x1b[?1049h")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")
