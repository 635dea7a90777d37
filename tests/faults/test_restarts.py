"""The launcher restarts its processes after they are killed, and requests continue."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from bench.processes import read_command_line
from launcher.processes import redis_server
from launcher.processes.termination import has_ended
from simulator.responses import translate
from tests.system.farm import Farm, chat_body, start_farm, streamed_text
from tests.upstream import start_simulator
from tests.waiting import eventually

PROMPT = "word " * 40


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    simulator, upstream = start_simulator("--accounts", "4", "--rotate", "--chunks", "20", "--chunk-delay", "0.15")
    running = start_farm(tmp_path_factory.mktemp("restarts"), upstream, 4)
    yield running
    assert running.command("stop").returncode == 0
    simulator.terminate()
    simulator.communicate()


def find_process(farm: Farm, word: str) -> psutil.Process:
    launcher = psutil.Process(farm.record.pid)
    return next(process for process in launcher.children() if word in read_command_line(process))


def is_serving(farm: Farm) -> bool:
    try:
        return farm.chat(stream=False).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.parametrize("word", ["valkey-server", "-m workers", "gunicorn"])
def test_a_killed_process_is_restarted_and_running_streams_are_complete(farm: Farm, word: str):
    streams: list[requests.Response] = []

    def stream() -> None:
        streams.append(farm.post("/v1/chat/completions", chat_body(PROMPT, stream=True)))

    threads = [threading.Thread(target=stream) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 3)
    killed = find_process(farm, word)
    orphans = killed.children()
    killed.kill()
    for thread in threads:
        thread.join(30)
    assert [streamed_text(stream) for stream in streams] == [translate(PROMPT)] * 3
    eventually(lambda: find_process(farm, word).pid != killed.pid)
    eventually(lambda: is_serving(farm))
    eventually(lambda: farm.live_pool()["workers"]["idle"] == 4, within=60)
    eventually(lambda: all(has_ended(orphan.pid) for orphan in orphans), within=60)
    assert farm.upstream.counters()["collisions"] == 0
    eventually(lambda: f"{killed.pid}" not in (farm.data / "farm.json").read_text())


def test_a_farm_whose_processes_die_while_redis_is_down_recovers_with_redis(tmp_path: Path):
    simulator, upstream = start_simulator("--accounts", "2")
    redis = redis_server.start(tmp_path / "store")
    farm = start_farm(tmp_path, upstream, 2, REDIS_URL=redis_server.build_url(tmp_path / "store"), WEB_CONCURRENCY="1")
    processes = [
        *farm.processes("-m workers"),
        farm.refresher(),
        *farm.processes("gunicorn"),
        find_process(farm, "-m workers"),
    ]
    redis.kill()
    redis.wait()
    for process in processes:
        process.kill()
        time.sleep(1.5)
    redis = redis_server.start(tmp_path / "store")
    eventually(lambda: is_serving(farm), within=60)
    assert farm.command("stop").returncode == 0
    redis.terminate()
    redis.wait()
    simulator.terminate()
    simulator.communicate()
