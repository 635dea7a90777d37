"""The HTTPS endpoint of `./farm up`: streams, the addresses of callers, deaths and reloads of its reverse proxy."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import requests

from bench.processes import read_name
from tests.environment import free_port
from tests.system.farm import KEY, Farm, chat_body, reset_farm, start_farm, streamed_text
from tests.upstream import start_simulator
from tests.waiting import eventually

ELSEWHERE = "203.0.113.9"
CA = Path("caddy", "pki", "authorities", "local", "root.crt")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder: Path = tmp_path_factory.mktemp("endpoint")
    data, port = folder / "data", free_port()
    process, upstream = start_simulator("--accounts", "2", "--rotate")
    settings = {"FARM_HTTPS": "internal", "FARM_HTTPS_PORT": str(port), "FARM_CONFIG": str(folder / "farm.toml")}
    farm = start_farm(data, upstream, 2, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(data / CA))
        yield replace(farm, url=f"https://localhost:{port}")
    started = [int(pid) for pid in farm.record.processes]
    assert farm.command("stop").returncode == 0
    assert [pid for pid in started if psutil.pid_exists(pid)] == []
    assert not list(data.glob("*.sock"))
    assert KEY not in farm.log()
    process.terminate()
    process.communicate()


@pytest.fixture
def farm(running: Farm) -> Farm:
    return reset_farm(running)


def find_caddy(farm: Farm) -> psutil.Process:
    (caddy,) = [child for child in psutil.Process(farm.record.pid).children() if read_name(child) == "caddy"]
    return caddy


def start_curl(farm: Farm, *options: str) -> "subprocess.Popen[bytes]":
    """A chat by HTTP/2, over a connection of its own."""
    command = ["curl", "-sN", "--http2", "--cacert", farm.data / CA, "-H", f"x-api-key: {KEY}", *options]
    body = json.dumps(chat_body("to be or not to be", stream=True))
    command += ["-H", "content-type: application/json", "-d", body, f"{farm.url}/v1/chat/completions"]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def is_up(farm: Farm) -> bool:
    try:
        return farm.get("/healthz").ok
    except requests.ConnectionError:
        return False


def test_streams_pass_by_http_1_and_2_and_who_leaves_frees_the_worker(farm: Farm):
    text = farm.chat("to be or not to be", stream=False).json()["choices"][0]["message"]["content"]
    assert streamed_text(farm.post("/v1/chat/completions", chat_body("to be or not to be", stream=True))) == text
    output, _ = start_curl(farm, "-w", "%{http_version}").communicate(timeout=60)
    assert output.endswith(b"data: [DONE]\n\n2")
    status = farm.json("status")
    assert (status["url"], status["file_store"]["state"]) == (farm.url, "ok")

    # Each piece takes so long that a proxy which collects them would hold back the first one for minutes.
    farm.upstream.pace(chunks=100, chunk_delay=5)
    with closing(farm.chat("to be or not to be", stream=True)) as stream:
        pieces = stream.iter_content(None)
        assert next(pieces).startswith(b"data: ")
        curl = start_curl(farm)
        assert curl.stdout
        assert curl.stdout.readline().startswith(b"data: ")
        assert farm.upstream.counters()["in_flight"] == 2
        curl.kill()
        curl.communicate()
        eventually(lambda: farm.upstream.counters()["in_flight"] == 1)
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)


def test_fronts_are_reached_only_through_the_proxy(farm: Farm):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(farm.environment["PORT"])))
    assert (farm.data / "web.sock").stat().st_mode & 0o077 == 0
    response = farm.post("/v1/chat/completions", chat_body("x" * 27_000_000))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_changed_proxies_are_trusted_after_a_reload_that_cuts_no_stream(farm: Farm):
    created = farm.admin("POST", "/keys", json={"name": "elsewhere", "networks": [ELSEWHERE]}).json()["key"]

    def status_with_forged_address() -> int:
        return farm.get("/v1/models", key=created, headers={"x-forwarded-for": ELSEWHERE}).status_code

    assert status_with_forged_address() == 403
    farm.upstream.pace(chunks=2, chunk_delay=5)
    stream = farm.chat("to be or not to be", stream=True)
    file = Path(farm.environment["FARM_CONFIG"])
    file.write_text("trusted_proxies = ['127.0.0.1']")
    reloaded = farm.command("reload")
    assert reloaded.returncode == 0, reloaded.stderr
    assert status_with_forged_address() == 200
    assert streamed_text(stream)
    file.unlink()
    assert farm.command("reload").returncode == 0
    assert status_with_forged_address() == 403


def test_dead_proxy_is_started_again_with_its_certificates(farm: Farm):
    authority, dead = (farm.data / CA).read_bytes(), find_caddy(farm).pid
    farm.upstream.pace(chunks=100, chunk_delay=5)
    with closing(farm.chat(stream=True)) as stream:
        pieces = stream.iter_content(None)
        assert next(pieces).startswith(b"data: ")
        os.kill(dead, signal.SIGKILL)
        eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    eventually(lambda: is_up(farm))
    assert find_caddy(farm).pid != dead
    assert str(find_caddy(farm).pid) in eventually(lambda: farm.record).processes
    assert (farm.data / CA).read_bytes() == authority
