"""Data that needs a newer farm is refused; older data is stamped."""

import os
import subprocess
import sys

import pytest
from redis import Redis

from shared import keys
from shared.redis_connection.data_version import DATA_VERSION, DataTooNew, stamp_data
from tests.environment import ROOT
from tests.redis_dump import dump_redis


def read_stamp(redis: Redis) -> tuple[int, int]:
    version, needs = redis.hmget(keys.DATA_VERSION, "version", "needs")
    return int(version), int(needs)


def test_unstamped_data_is_stamped_and_an_older_farm_may_work_beside_a_newer_one(redis: Redis):
    stamp_data(redis, version=1, needs=0)
    assert read_stamp(redis) == (1, 0)
    stamp_data(redis, version=3, needs=1)
    stamp_data(redis, version=1, needs=0)
    assert read_stamp(redis) == (3, 1)


def test_data_that_needs_a_newer_farm_is_refused_and_unchanged(redis: Redis):
    stamp_data(redis, version=3, needs=2)
    before = dump_redis(redis)
    with pytest.raises(DataTooNew, match=r"data version 3.*needs one that knows version 2; this one knows version 1"):
        stamp_data(redis, version=1)
    assert dump_redis(redis) == before


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "launcher", "keys", "create", "--name", "a"],
        ["-m", "workers"],
        ["-m", "gunicorn", "-c", "python:web.gunicorn_conf"],
    ],
)
def test_every_process_refuses_data_that_needs_a_newer_farm(
    redis: Redis, redis_url: str, tmp_path_factory: pytest.TempPathFactory, command: list[str]
):
    stamp_data(redis, version=DATA_VERSION + 1, needs=DATA_VERSION + 1)
    before = dump_redis(redis)
    environment = {
        **os.environ,
        "REDIS_URL": redis_url,
        "FARM_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "FARM_UPSTREAM_URL": "http://127.0.0.1:9/v1",
        "FARM_TOKEN_URL": "http://127.0.0.1:9/token",
        "FARM_WORKER_PROCESSES": "1",
    }
    run = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode != 0
    assert "needs one that knows version" in run.stderr
    assert "Traceback" not in run.stderr
    assert dump_redis(redis) == before
