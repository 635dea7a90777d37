"""`./farm` from the command line: the demo, start, stop, restart, failing starts, and the operator's commands."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from redis import Redis

from launcher.processes.data_dir import DataDir
from tests.environment import ROOT, free_port
from tests.system.command_line import (
    FARM,
    assert_start_fails,
    build_environment,
    find_processes,
    run_closed,
    run_command,
    run_unread,
)
from tests.upstream import Upstream, first_refresh_tokens
from tests.waiting import eventually

#: What the farm must not use on its own machine.
DEAD_PROXIES = {
    "http_proxy": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
}


def start_in_foreground(env: dict[str, str], output: Path) -> "subprocess.Popen[bytes]":
    with output.open("w") as file:
        process = subprocess.Popen([*FARM, "up"], env=env, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    eventually(lambda: "try: curl" in output.read_text() or process.poll() is not None, within=60)
    assert process.poll() is None, output.read_text()
    return process


def test_demo_prints_a_curl_line_that_streams_a_reply(tmp_path: Path):
    data = tmp_path / "data"
    env = build_environment(data, **DEAD_PROXIES)
    process = start_in_foreground(env, tmp_path / "out")
    printed = (tmp_path / "out").read_text()
    assert "bundled simulator (20 accounts)" in printed
    line = re.search(r"try: (curl .*)", printed)
    assert line
    streamed = subprocess.run(line[1], shell=True, capture_output=True, text=True, timeout=30).stdout
    assert streamed.rstrip().endswith("data: [DONE]")
    assert len(run_command(env, "credentials", "list").stdout.splitlines()) == 21

    key = re.search(r"API key \(shown once\): (sk-\S+)", printed)
    assert key
    url = f"http://127.0.0.1:{env['PORT']}/v1/chat/completions"
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "words " * 20}]}
    response = requests.post(url, json=body, headers={"authorization": f"Bearer {key[1]}"}, stream=True, timeout=30)
    chunks = response.iter_content(None)
    first = next(chunks)
    process.send_signal(signal.SIGINT)
    rest = b"".join(chunks)
    assert (first + rest).rstrip().endswith(b"data: [DONE]"), "the drain cut a running stream"
    assert process.wait(60) == 0
    assert find_processes(data) == []
    assert sorted(file.name for file in data.iterdir()) == ["redis", "secret.key"]

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager:
        service_manager.bind(str(tmp_path / "notify"))
        service_manager.settimeout(30)
        env_of_service = {**env, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = subprocess.Popen(
            [*FARM, "up"], env=env_of_service, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert service_manager.recv(100) == b"READY=1"
    assert process.stdout
    assert b"shown once" not in os.read(process.stdout.fileno(), 65_536)
    process.stdout.close()  # as with `| head`; fronts and workers write into the void from now on
    assert run_command(env, "reload").returncode == 0
    assert len(run_command(env, "credentials", "list").stdout.splitlines()) == 21
    response = requests.post(
        url, json={**body, "stream": False}, headers={"authorization": f"Bearer {key[1]}"}, timeout=30
    )
    assert response.status_code == 200
    process.terminate()
    assert process.wait(60) == 0


def test_detached_farm_is_started_once_restarted_and_stopped(tmp_path: Path):
    env = build_environment(tmp_path / "data")
    assert run_command(env, "status").returncode == 1
    assert run_closed(env, "up", "--detach") == 0
    second = run_command(env, "up", "--detach")
    assert (second.returncode, "already" in second.stdout) == (0, True)
    before = run_command(env, "status", "--json").stdout
    assert '"running": true' in before
    assert run_unread(env, "restart") == 0
    after = run_command(env, "status", "--json").stdout
    assert '"running": true' in after and after != before
    broken = env | {"FARM_CONFIG": str(tmp_path / "broken.toml")}
    (tmp_path / "broken.toml").write_text("max_queue = 'many'")
    assert "max_queue" in run_command(broken, "restart").stderr
    assert run_command(env, "status").returncode == 0
    assert "worker process is up" in run_command(env, "logs").stdout
    assert run_command(broken, "stop").stdout == "stopped\n"
    assert run_command(env, "stop").stdout == "the farm is not running\n"
    assert find_processes(tmp_path / "data") == []


def test_start_after_a_kill_stops_leftover_processes(tmp_path: Path):
    env = build_environment(tmp_path / "data")
    run_command(env, "up", "--detach")
    record = DataDir(str(tmp_path / "data")).read_record()
    assert record
    os.kill(record.pid, signal.SIGKILL)
    eventually(lambda: not DataDir(str(tmp_path / "data")).is_locked())
    started = run_command(env, "up", "--detach")
    assert started.returncode == 0, started.stderr
    assert "of a farm that was killed" in started.stdout
    run_command(env, "stop")
    assert find_processes(tmp_path / "data") == []


def test_busy_port_is_reported(tmp_path: Path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        assert_start_fails(build_environment(tmp_path / "d", PORT=port), tmp_path / "d", port, "in use")


def test_unreachable_redis_is_reported(tmp_path: Path):
    env = build_environment(tmp_path / "d", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert_start_fails(env, tmp_path / "d", "Redis does not respond")


@pytest.mark.parametrize(
    ("settings", "word"), [({"FARM_QUEUE_TIMEOT": "3"}, "FARM_QUEUE_TIMEOUT"), ({"PORT": "http"}, "PORT")]
)
def test_invalid_setting_is_reported(tmp_path: Path, settings: dict[str, str], word: str):
    assert_start_fails(build_environment(tmp_path / "d", **settings), tmp_path / "d", word)


def test_procfile_runs_under_honcho(tmp_path: Path, redis_url: str, redis: Redis, upstream: Upstream):
    port = free_port()
    env = build_environment(
        tmp_path / "data",
        PORT=str(port),
        REDIS_URL=redis_url,
        FARM_UPSTREAM_URL=upstream.url,
        FARM_TOKEN_URL=upstream.token_url,
        FARM_API_KEY="sk-procfile-0123456789",
        FARM_REFRESH_TOKENS_FILE=str(tmp_path / "tokens.txt"),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    (tmp_path / "tokens.txt").write_text("\n".join(first_refresh_tokens(3)))
    runner = subprocess.Popen(["honcho", "start", "--port", str(port)], env=env, cwd=ROOT, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return requests.get(f"{url}/readyz", timeout=10).status_code == 200
        except requests.RequestException:
            return False

    eventually(is_ready)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": "Bearer sk-procfile-0123456789"}
    assert "Uryyb" in requests.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20).text
    runner.terminate()
    runner.wait(30)
