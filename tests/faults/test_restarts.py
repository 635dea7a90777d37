"""Whatever the launcher started and somebody killed is started again, and requests go on."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from launcher.processes import redis_server
from launcher.processes.termination import has_ended
from tests.conftest import start_simulator
from tests.system.farm import Farm, chat_body, start, streamed_text
from tests.waiting import eventually

PIECES = "word " * 40


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    simulator, upstream = start_simulator("--accounts", "4", "--rotate", "--chunks", "20", "--chunk-delay", "0.15")
    made = start(tmp_path_factory.mktemp("restarts"), upstream, 4)
    yield made
    assert made.command("stop").returncode == 0
    simulator.terminate()
    simulator.communicate()


def started(farm: Farm, word: str) -> psutil.Process:
    launcher = psutil.Process(farm.json("status")["pid"])
    return next(one for one in launcher.children() if word in " ".join(one.cmdline()))


def answers(farm: Farm) -> bool:
    try:
        return farm.chat(stream=False).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.parametrize("word", ["redis-server", "-m workers", "gunicorn"])
def test_what_was_killed_is_back_and_running_streams_are_whole(farm: Farm, word: str):
    streams: list[requests.Response] = []

    def stream() -> None:
        streams.append(farm.post("/v1/chat/completions", chat_body(PIECES, stream=True)))

    threads = [threading.Thread(target=stream) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 3)
    killed = started(farm, word)
    orphans = killed.children()
    killed.kill()
    for thread in threads:
        thread.join(30)
    assert [streamed_text(one) for one in streams] == [streamed_text(streams[0])] * 3
    eventually(lambda: started(farm, word).pid != killed.pid)
    eventually(lambda: answers(farm), within=20)
    eventually(lambda: farm.json("status")["pools"][0]["workers"]["idle"] == 4, within=40)
    eventually(lambda: all(has_ended(one.pid) for one in orphans), within=40)
    assert farm.upstream.counters()["collisions"] == 0
    assert f"{killed.pid}" not in (farm.data / "farm.json").read_text()


def test_a_farm_whose_redis_is_away_while_its_processes_die_is_back_when_redis_is(tmp_path: Path):
    simulator, upstream = start_simulator("--accounts", "2")
    redis = redis_server.start(tmp_path / "store")
    farm = start(tmp_path, upstream, 2, REDIS_URL=redis_server.build_url(tmp_path / "store"), WEB_CONCURRENCY="1")
    everyone = [*farm.processes("-m workers"), *farm.processes("gunicorn"), started(farm, "-m workers")]
    redis.kill()
    redis.wait()
    for one in everyone:
        one.kill()
        time.sleep(1.5)
    redis = redis_server.start(tmp_path / "store")
    eventually(lambda: answers(farm), within=40)
    assert farm.command("stop").returncode == 0
    redis.terminate()
    redis.wait()
    simulator.terminate()
    simulator.communicate()
