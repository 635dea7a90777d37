"""Whatever the launcher started and somebody killed is started again, and requests go on."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from launcher.processes import MOST_DEATHS
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
    killed.kill()
    for thread in threads:
        thread.join(30)
    assert [streamed_text(one) for one in streams] == [streamed_text(streams[0])] * 3
    eventually(lambda: started(farm, word).pid != killed.pid)
    eventually(lambda: answers(farm), within=20)
    eventually(lambda: farm.json("status")["pools"][0]["workers"]["idle"] == 4, within=40)
    assert farm.upstream.counters()["collisions"] == 0
    assert f"{killed.pid}" not in (farm.data / "farm.json").read_text()


def test_what_dies_again_and_again_stops_the_farm_in_good_order(tmp_path: Path):
    simulator, upstream = start_simulator("--accounts", "1")
    farm = start(tmp_path, upstream, 1)
    for _ in range(MOST_DEATHS + 1):
        victim = eventually(lambda: running(farm, "-m workers"))
        victim.kill()
        eventually(lambda v=victim: running(farm, "-m workers") != v, within=10)
    eventually(lambda: farm.command("status").returncode == 1, within=60)
    assert "dies again and again" in farm.log()
    simulator.terminate()
    simulator.communicate()


def running(farm: Farm, word: str) -> psutil.Process | None:
    try:
        return started(farm, word)
    except (StopIteration, psutil.Error, AssertionError):
        return None
