"""The health check of a worker container."""

import os
import socket
import subprocess
import sys

from redis import Redis

from shared import keys
from shared.credentials.unsealing import Unsealer
from shared.settings.schema import Settings
from tests.environment import ROOT, clean_environment
from workers.health_check import MAX_SILENCE_SECONDS, count_processes
from workers.process.membership import Membership

HERE = f"{socket.gethostname()}-{os.getpid()}-00"


def test_worker_host_is_healthy_while_one_of_its_processes_reports(redis: Redis, unsealer: Unsealer):
    Membership(redis, "another-host-1-00", Settings()).refresh([])
    assert count_processes(redis) == 0
    membership = Membership(redis, HERE, Settings())
    membership.refresh([])
    assert count_processes(redis) == 1
    membership.retire([], is_replaced=False)
    assert count_processes(redis) == 1
    membership.leave()
    assert count_processes(redis) == 0


def test_worker_host_whose_process_hangs_is_unhealthy(redis: Redis):
    redis.zadd(keys.PROCESSES, {HERE: redis.time()[0] - MAX_SILENCE_SECONDS - 10})
    assert count_processes(redis) == 0


def test_health_check_exits_with_what_it_finds(redis: Redis, redis_url: str):
    def check(url: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "workers.health_check"]
        result = subprocess.run(
            command, env=clean_environment(REDIS_URL=url), cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        return result.returncode, result.stdout + result.stderr

    redis.zadd(keys.PROCESSES, {HERE: redis.time()[0]})
    assert check(redis_url) == (0, "1 worker processes of this host report to Redis\n")
    code, text = check("unix:///nowhere/redis.sock")
    assert code == 1
    assert text.startswith("farm: ")
    assert "Traceback" not in text
