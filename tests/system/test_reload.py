"""A reload cuts no request, however long it takes; bad settings change nothing; at a stop every caller gets a reply."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from redis import Redis

from bench.processes import read_command_line, read_name
from tests.environment import clean_environment, free_port
from tests.system.farm import ADMIN, KEY, Farm, chat_body, streamed_text
from tests.upstream import first_refresh_tokens, start_simulator
from tests.waiting import eventually
from workers.refresher.process import PROCESS_NAME

FARM_TOML = """
drain = 0.5
keepalive = 60

[pools.one]
upstream_url = "{upstream.url}"
token_url = "{upstream.token_url}"
refresh_tokens_file = "{home}/tokens.txt"
models = ["sim-translate"]
"""
#: Seconds that a stream takes: far longer than the drain time.
STREAM_SECONDS = 8.0
PROMPT = "word " * 40


class ConfiguredFarm(Farm):
    """A farm with a farm.toml of its own."""

    @property
    def config(self) -> Path:
        return Path(self.environment["FARM_CONFIG"])

    def masters(self) -> list[psutil.Process]:
        """gunicorn's master and the workers' supervisor."""
        launcher = psutil.Process(self.record.pid)
        return [
            child
            for child in launcher.children()
            if any(word in read_command_line(child) for word in ("gunicorn", "workers"))
        ]

    def supervisor(self) -> psutil.Process:
        return next(master for master in self.masters() if "-m workers" in read_command_line(master))

    def serving(self) -> set[int]:
        """Fronts and worker processes, without the token refresher."""
        children = [child for master in self.masters() for child in master.children()]
        return {child.pid for child in children if read_name(child) not in ("", PROCESS_NAME)}


@pytest.fixture(scope="module")
def running_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfiguredFarm]:
    home = tmp_path_factory.mktemp("reload")
    chunk_delay = str(STREAM_SECONDS / 20)
    simulator, upstream = start_simulator("--accounts", "2", "--chunks", "20", "--chunk-delay", chunk_delay)
    (home / "tokens.txt").write_text("\n".join(first_refresh_tokens(2)))
    (home / "farm.toml").write_text(FARM_TOML.format(upstream=upstream, home=home))
    port = free_port()
    environment = clean_environment(
        PORT=str(port),
        FARM_CONFIG=str(home / "farm.toml"),
        FARM_DATA_DIR=str(home / "data"),
        FARM_API_KEY=KEY,
        FARM_ADMIN_TOKEN=ADMIN,
        WEB_CONCURRENCY="1",
        FARM_WORKER_PROCESSES="1",
    )
    farm = ConfiguredFarm(f"http://127.0.0.1:{port}", environment, home / "data", upstream)
    started = farm.command("up", "--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    yield farm
    farm.command("stop")
    simulator.terminate()
    simulator.communicate()
    assert "Traceback" not in farm.log(), farm.log()


@pytest.fixture
def farm(running_farm: ConfiguredFarm) -> Iterator[ConfiguredFarm]:
    """The farm, with its settings as they were at the start, and an empty log."""
    settings = running_farm.config.read_text()
    os.truncate(running_farm.data / "farm.log", 0)
    yield running_farm
    running_farm.config.write_text(settings)
    running_farm.upstream.pace(chunk_delay=STREAM_SECONDS / 20)


class Caller:
    """A chat request in a thread of its own."""

    def __init__(self, farm: Farm, **fields: object) -> None:
        self._farm = farm
        self._fields = fields
        self._response: requests.Response | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._response = self._farm.post("/v1/chat/completions", chat_body(PROMPT, **self._fields), timeout=60)

    def wait(self) -> requests.Response:
        self._thread.join(90)
        assert self._response is not None, "no reply"
        return self._response


def start_callers(farm: Farm) -> tuple[list[Caller], list[Caller]]:
    """Two streams that run, and two requests that wait in the queue for them to end."""
    running = [Caller(farm, stream=True) for _ in range(2)]
    eventually(lambda: farm.upstream.counters()["in_flight"] == 2)
    waiting = [Caller(farm, stream=stream) for stream in (True, False)]
    eventually(lambda: farm.live_pool()["queue_depth"]["interactive"] == 2)
    return running, waiting


def send_signals(farm: ConfiguredFarm) -> None:
    for master in farm.masters():
        master.send_signal(signal.SIGHUP)


@contextmanager
def watch_readiness(farm: Farm) -> Iterator[set[int]]:
    """Asks /readyz all the time, as a load balancer does now and then; yields the statuses."""
    statuses: set[int] = set()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            statuses.add(requests.get(f"{farm.url}/readyz", timeout=60).status_code)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        thread.join()


def test_farm_is_ready_throughout_a_reload_that_says_what_it_could_not_change(farm: ConfiguredFarm):
    """Its idle workers end at once, and those of the new processes begin a little later."""
    old = farm.serving()
    farm.config.write_text('https = "internal"' + farm.config.read_text())
    with watch_readiness(farm) as statuses:
        result = farm.command("reload")
        assert result.returncode == 0, result.stderr
        assert "FARM_HTTPS needs `./farm restart`" in result.stdout
        eventually(lambda: not old & farm.serving())
        eventually(lambda: farm.live_pool()["workers"]["idle"] == 2)
    assert statuses == {200}


def test_admin_api_tells_what_a_reload_would_change_and_reloads(farm: ConfiguredFarm):
    def read() -> dict[str, Any]:
        found: dict[str, Any] = farm.admin("GET", "/reload").json()
        return found

    # Another test has left what this one finds in the file out of force.
    assert farm.command("reload").returncode == 0
    settings, old = farm.config.read_text(), farm.serving()
    assert (read()["changes"], read()["is_possible"]) == ([], True)
    farm.config.write_text("drain = 'soon'")
    assert "drain" in read()["problem"]
    farm.config.write_text(settings.replace("keepalive = 60", "keepalive = 61"))
    (change,) = read()["changes"]
    assert [change[name] for name in ("name", "before", "after", "needs_restart")] == ["keepalive", "60", "61", False]
    assert farm.admin("POST", "/reload", json={}).json()["state"] == "running"
    eventually(lambda: read()["state"] == "done" and not read()["changes"])
    eventually(lambda: not old & farm.serving())


def test_reload_cuts_no_request_and_loses_none(farm: ConfiguredFarm):
    old = farm.serving()
    running, waiting = start_callers(farm)
    send_signals(farm)
    eventually(lambda: farm.log().count("farm: reloaded") == 2)
    result = farm.command("reload")
    assert (result.returncode, result.stdout.partition(";")[0]) == (0, "reloaded"), result.stderr
    replies = [caller.wait() for caller in (*running, *waiting)]
    assert [reply.status_code for reply in replies] == [200] * 4
    assert len({streamed_text(reply) for reply in replies[:3]}) == 1
    assert farm.upstream.counters()["served"] == 4, "none was tried twice"
    assert farm.upstream.counters()["collisions"] == 0
    eventually(lambda: len(farm.serving()) == 2)
    assert not old & farm.serving()


def spoil_token_file(farm: ConfiguredFarm) -> str:
    farm.config.write_text(farm.config.read_text().replace("tokens.txt", "nope.txt"))
    return "FARM_REFRESH_TOKENS_FILE"


def spoil_ca_bundle(farm: ConfiguredFarm) -> str:
    farm.config.write_text(farm.config.read_text() + 'ca_bundle = "/nope"\n')
    return "FARM_CA_BUNDLE: /nope"


@pytest.mark.parametrize("spoil", [spoil_token_file, spoil_ca_bundle])
def test_bad_settings_change_nothing_and_are_named(farm: ConfiguredFarm, spoil: Callable[[ConfiguredFarm], str]):
    named = spoil(farm)
    farm.upstream.pace(chunk_delay=0)
    serving = farm.serving()
    result = farm.command("reload")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1), result.stderr
    assert named in result.stderr
    farm.supervisor().send_signal(signal.SIGHUP)
    eventually(lambda: "not reloaded, the settings are unchanged" in farm.log())
    assert named in farm.log()
    assert farm.serving() == serving
    assert farm.chat().status_code == 200


def test_reload_waits_for_a_silent_redis(farm: ConfiguredFarm):
    old = farm.serving()
    caller = Caller(farm, stream=True)
    eventually(lambda: farm.upstream.counters()["in_flight"] == 1)
    with Redis.from_url(farm.redis_url()) as redis:
        redis.execute_command("CLIENT", "PAUSE", "3000", "ALL")
    send_signals(farm)
    eventually(lambda: farm.log().count("farm: reloaded") == 2)
    assert len(streamed_text(caller.wait())) > 0
    eventually(lambda: not old & farm.serving())


def test_stopped_workers_cut_what_has_begun_and_leave_the_rest_to_others(farm: ConfiguredFarm):
    farm.upstream.pace(chunk_delay=3)
    chunks = farm.chat(PROMPT, stream=True).iter_content(None)
    next(chunks)
    farm.upstream.pace(delay=60, chunk_delay=3)
    whole = Caller(farm, stream=False)
    eventually(lambda: farm.upstream.counters()["in_flight"] == 2)
    farm.upstream.pace(chunk_delay=3)
    farm.supervisor().send_signal(signal.SIGTERM)
    last_event = b"".join(chunks).decode().rstrip().rpartition("data: ")[2]
    assert json.loads(last_event)["error"]["code"] == "worker_stopped"
    retried = whole.wait()
    assert (retried.status_code, retried.headers["x-farm-attempts"]) == (200, "2")


def test_every_caller_gets_a_reply_at_a_stop(farm: ConfiguredFarm):
    farm.upstream.pace(chunk_delay=3)
    running, waiting = start_callers(farm)
    assert farm.command("stop").returncode == 0
    for reply in (caller.wait() for caller in waiting):
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "shutting_down")
        assert int(reply.headers["retry-after"]) > 0
    for reply in (caller.wait() for caller in running):
        last_event = reply.text.rstrip().rpartition("data: ")[2]
        assert json.loads(last_event)["error"]["code"] == "shutting_down"
