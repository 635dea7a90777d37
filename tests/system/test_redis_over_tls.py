"""Redis on another machine: behind TLS, as an ACL user with the rights that the farm needs, and slow."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from redis import Redis

from bench.replicated_redis import RIGHTS
from launcher.processes import redis_server
from tests.system.farm import ADMIN, Farm, chat_body, start_farm, streamed_text
from tests.tls_relay import TlsRelay, run_tls_relay
from tests.upstream import start_simulator
from tests.waiting import eventually

#: With characters that a URL has to escape.
PASSWORD, ESCAPED = "p@ss/word:1", "p%40ss%2Fword%3A1"
TEXT = "to be or not to be"


@dataclass
class RemoteRedis:
    """A Redis that wants TLS and a user's password."""

    url: str
    relay: TlsRelay
    #: A connection without TLS, for what only its administrator may do.
    administrator: Redis


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteRedis]:
    home = tmp_path_factory.mktemp("remote")
    server = redis_server.start(home)
    administrator = Redis.from_url(redis_server.build_url(home), single_connection_client=True)
    administrator.execute_command("ACL", "SETUSER", "farm@one", "on", f">{PASSWORD}", *RIGHTS.split())
    administrator.execute_command("ACL", "SETUSER", "default", "off")
    with run_tls_relay(str(redis_server.prepare_socket_path(home)), home / "redis.pem") as relay:
        options = f"ssl_ca_certs={relay.certificate}"
        yield RemoteRedis(f"rediss://farm%40one:{ESCAPED}@localhost:{relay.port}/0?{options}", relay, administrator)
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def running_farm(tmp_path_factory: pytest.TempPathFactory, remote: RemoteRedis) -> Iterator[Farm]:
    simulator, upstream = start_simulator("--accounts", "4", "--rotate", "--chunks", "20")
    settings = {"REDIS_URL": remote.url, "FARM_WORKER_PROCESSES": "2", "WEB_CONCURRENCY": "1"}
    farm = start_farm(tmp_path_factory.mktemp("over-tls"), upstream, 4, **settings)
    yield farm
    assert farm.command("stop").returncode == 0
    simulator.terminate()
    simulator.communicate()
    assert PASSWORD not in farm.log()
    assert ESCAPED not in farm.log()


@pytest.fixture
def farm(running_farm: Farm, remote: RemoteRedis) -> Iterator[Farm]:
    yield running_farm
    remote.relay.delay = 0.0
    running_farm.upstream.reset()


def stream_in_threads(farm: Farm, count: int) -> tuple[list[threading.Thread], list[requests.Response]]:
    """Starts so many streams, and returns once all are at the upstream."""
    responses: list[requests.Response] = []

    def stream() -> None:
        responses.append(farm.post("/v1/chat/completions", chat_body(TEXT, stream=True), timeout=120))

    threads = [threading.Thread(target=stream) for _ in range(count)]
    for thread in threads:
        thread.start()
    eventually(lambda: farm.upstream.counters()["in_flight"] == count)
    return threads, responses


def assert_whole(responses: list[requests.Response], expected: str, count: int) -> None:
    assert [streamed_text(response) for response in responses] == [expected] * count


def test_requests_rotations_and_commands_need_no_right_beyond_those_documented(farm: Farm, remote: RemoteRedis):
    whole = farm.chat(TEXT, stream=False)
    assert whole.status_code == 200
    expected = whole.json()["choices"][0]["message"]["content"]
    farm.upstream.accounts(expire=True)
    assert_whole([farm.post("/v1/chat/completions", chat_body(TEXT, stream=True))], expected, 1)
    farm.upstream.pace(chunks=1000, chunk_delay=0.05)
    leaving = farm.post("/v1/chat/completions", chat_body(stream=True), stream=True)
    assert next(leaving.iter_content(10))
    leaving.close()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    key = farm.admin("POST", "/keys", json={"name": "other"}).json()
    farm.admin("POST", f"/keys/{key['id']}/revoke", json={})
    farm.admin("POST", f"/credentials/{farm.credentials()[0]['id']}/test", json={})
    for path in ("", "/data/queues.json", "/data/workers.json"):
        assert farm.get(f"/admin/rq/0{path}", key=ADMIN).ok
    for command in (("status",), ("rq", "info")):
        result = farm.command(*command)
        assert result.returncode == 0, result.stderr
        assert PASSWORD not in result.stdout
        assert ESCAPED not in result.stdout
    # redis-py names itself with CLIENT SETINFO, and goes on without.
    denied = [entry for entry in remote.administrator.acl_log() if entry["object"] != "client"]
    assert denied == []


def test_streams_are_whole_when_every_connection_breaks(farm: Farm, remote: RemoteRedis):
    expected = farm.chat(TEXT, stream=False).json()["choices"][0]["message"]["content"]
    farm.upstream.pace(chunks=20, chunk_delay=3)
    threads, responses = stream_in_threads(farm, 3)
    assert remote.relay.break_connections() > 4
    farm.upstream.pace(chunks=20, chunk_delay=0.1)
    for thread in threads:
        thread.join(60)
    assert_whole(responses, expected, 3)
    assert farm.upstream.counters()["collisions"] == 0


def test_requests_and_streams_are_whole_over_a_slow_link(farm: Farm, remote: RemoteRedis):
    expected = farm.chat(TEXT, stream=False).json()["choices"][0]["message"]["content"]
    remote.relay.delay = 0.3
    farm.upstream.pace(chunks=20, chunk_delay=3)
    threads, responses = stream_in_threads(farm, 4)
    farm.upstream.pace(chunks=20, chunk_delay=0.1)
    for thread in threads:
        thread.join(120)
    assert_whole(responses, expected, 4)
    assert farm.upstream.counters()["collisions"] == 0
    assert "lease_lost" not in farm.log()


def test_wrong_password_is_reported_in_one_line_that_does_not_print_it(farm: Farm, remote: RemoteRedis, tmp_path: Path):
    environment = farm.environment | {
        "REDIS_URL": remote.url.replace(ESCAPED, "wr0ng-one"),
        "FARM_DATA_DIR": str(tmp_path / "data"),
    }
    other = Farm(farm.url, environment, tmp_path / "data", farm.upstream)
    result = other.command("up", "--detach")
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (1, 1), result.stderr
    assert "wr0ng-one" not in result.stderr
