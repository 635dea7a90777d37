"""A worker process waits for Redis where the settings have worked before, and ends where they have not."""

import subprocess
import sys
from pathlib import Path

from tests.environment import ROOT, clean_environment
from tests.waiting import eventually

SCRIPT = """
from gevent import monkey
monkey.patch_all()
import os, sys
from shared.ready_flag import ReadyFlag
from shared.settings.loading import load_settings
from workers.process.main import serve
from workers.process_slot import SpawnInfo

may_wait = sys.argv[1] == "wait"
sys.exit(serve(load_settings(), SpawnInfo("here-1-a", "", True, os.getppid(), may_wait, ReadyFlag())))
"""


def start(home: Path, word: str) -> "subprocess.Popen[str]":
    environment = clean_environment(
        REDIS_URL=f"unix://{home}/nothing.sock",
        FARM_UPSTREAM_URL="http://up.example/v1",
        FARM_TOKEN_URL="http://up.example/token",
    )
    command = [sys.executable, "-c", SCRIPT, word]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def test_absent_redis_ends_a_process_at_the_first_start(tmp_path: Path):
    _, errors = start(tmp_path, "end").communicate(timeout=60)
    assert "farm: Redis does not respond" in errors


def test_absent_redis_is_waited_for_at_a_reload(tmp_path: Path):
    process = start(tmp_path, "wait")
    assert process.stderr
    stderr = process.stderr
    eventually(lambda: "waiting for Redis" in stderr.readline())
    eventually(lambda: "waiting for Redis" in stderr.readline())
    assert process.poll() is None
    process.kill()
    process.communicate()
