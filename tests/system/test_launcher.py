"""`./farm` as a newcomer and an operator use it: the demo, its end, and everything that can be in its way."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests
from redis import Redis

from launcher.processes.data_dir import DataDir
from tests.conftest import ROOT, clean_environment, free_port
from tests.upstream import Upstream, first_refresh_tokens
from tests.waiting import eventually

FARM = [sys.executable, "-m", "launcher"]


def environment(data: Path, **settings: str) -> dict[str, str]:
    return clean_environment(FARM_DATA_DIR=str(data), **({"PORT": str(free_port())} | settings))


def command(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*FARM, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)


def processes_of(data: Path) -> list[psutil.Process]:
    """Every process whose environment names that data dir."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FARM_DATA_DIR") == str(data) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def start_in_foreground(env: dict[str, str], output: Path) -> "subprocess.Popen[bytes]":
    with output.open("w") as file:
        process = subprocess.Popen([*FARM, "up"], env=env, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    eventually(lambda: "try: curl" in output.read_text() or process.poll() is not None, within=60)
    assert process.poll() is None, output.read_text()
    return process


def test_the_demo_says_what_to_do_and_doing_it_streams_an_answer(tmp_path: Path):
    data = tmp_path / "data"
    env = environment(data)
    process = start_in_foreground(env, tmp_path / "out")
    said = (tmp_path / "out").read_text()
    assert "bundled simulator (20 accounts)" in said
    line = re.search(r"try: (curl .*)", said)
    assert line
    streamed = subprocess.run(line[1], shell=True, capture_output=True, text=True, timeout=30).stdout
    assert streamed.rstrip().endswith("data: [DONE]")
    assert len(command(env, "credentials", "list").stdout.splitlines()) == 21

    key = re.search(r"API key \(shown once\): (sk-\S+)", said)
    assert key
    url = f"http://127.0.0.1:{env['PORT']}/v1/chat/completions"
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "words " * 20}]}
    answer = requests.post(url, json=body, headers={"authorization": f"Bearer {key[1]}"}, stream=True, timeout=30)
    pieces = answer.iter_content(None)
    first = next(pieces)
    process.send_signal(signal.SIGINT)
    rest = b"".join(pieces)
    assert (first + rest).rstrip().endswith(b"data: [DONE]"), "a running stream was not let to its end"
    assert process.wait(30) == 0
    assert processes_of(data) == []
    assert sorted(file.name for file in data.iterdir()) == ["redis", "secret.key"]

    process = start_in_foreground(env, tmp_path / "again")
    assert "shown once" not in (tmp_path / "again").read_text()
    assert len(command(env, "credentials", "list").stdout.splitlines()) == 21
    again = requests.post(
        url, json={**body, "stream": False}, headers={"authorization": f"Bearer {key[1]}"}, timeout=30
    )
    assert again.status_code == 200
    process.terminate()
    assert process.wait(30) == 0


def test_a_detached_farm_is_started_once_restarted_and_stopped(tmp_path: Path):
    env = environment(tmp_path / "data")
    assert command(env, "status").returncode == 1
    assert command(env, "up", "--detach").returncode == 0
    again = command(env, "up", "--detach")
    assert (again.returncode, "already" in again.stdout) == (0, True)
    before = command(env, "status", "--json").stdout
    assert '"running": true' in before
    assert command(env, "restart").returncode == 0
    assert command(env, "status", "--json").stdout != before
    broken = env | {"FARM_CONFIG": str(tmp_path / "broken.toml")}
    (tmp_path / "broken.toml").write_text("max_queue = 'many'")
    assert "max_queue" in command(broken, "restart").stderr
    assert command(env, "status").returncode == 0
    assert "worker process is up" in command(env, "logs").stdout
    assert command(broken, "stop").stdout == "stopped\n"
    assert command(env, "stop").stdout == "the farm is not running\n"
    assert processes_of(tmp_path / "data") == []


def test_a_farm_that_was_killed_leaves_nothing_that_the_next_start_does_not_clear(tmp_path: Path):
    env = environment(tmp_path / "data")
    command(env, "up", "--detach")
    running = DataDir(str(tmp_path / "data")).read_record()
    assert running
    os.kill(running.pid, signal.SIGKILL)
    eventually(lambda: not DataDir(str(tmp_path / "data")).is_locked())
    started = command(env, "up", "--detach")
    assert started.returncode == 0, started.stderr
    assert "of a farm that was killed" in started.stdout
    command(env, "stop")
    assert processes_of(tmp_path / "data") == []


def fails(env: dict[str, str], data: Path, *words: str) -> None:
    """`up` says in one line what is wrong, exits with 1 and leaves nothing running."""
    for arguments in (("up",), ("up", "--detach")):
        done = command(env, *arguments)
        assert done.returncode == 1, done.stdout
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("farm: ")
        assert [word for word in words if word not in done.stderr] == []
        assert processes_of(data) == []
        assert not DataDir(str(data)).is_locked()


def test_a_busy_port_is_said(tmp_path: Path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        fails(environment(tmp_path / "d", PORT=port), tmp_path / "d", port, "in use")


def test_a_redis_that_does_not_answer_is_said(tmp_path: Path):
    env = environment(tmp_path / "d", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    fails(env, tmp_path / "d", "Redis does not answer")


@pytest.mark.parametrize(
    ("settings", "word"), [({"FARM_QUEUE_TIMEOT": "3"}, "FARM_QUEUE_TIMEOUT"), ({"PORT": "http"}, "PORT")]
)
def test_a_bad_setting_is_said(tmp_path: Path, settings: dict[str, str], word: str):
    fails(environment(tmp_path / "d", **settings), tmp_path / "d", word)


def test_a_wrong_secret_key_is_said_and_nothing_is_lost(tmp_path: Path):
    data = tmp_path / "data"
    env = environment(data)
    command(env, "up", "--detach")
    command(env, "stop")
    fails({**env, "FARM_SECRET_KEY": "another"}, data, "FARM_SECRET_KEY", "nothing was changed")
    assert command(env, "up", "--detach").returncode == 0
    assert len(command(env, "credentials", "list").stdout.splitlines()) == 21
    command(env, "stop")


def test_the_simulators_accounts_go_when_a_real_upstream_comes(tmp_path: Path):
    env = environment(tmp_path / "data")
    command(env, "up", "--detach")
    command(env, "stop")
    real = {**env, "FARM_UPSTREAM_URL": "http://127.0.0.1:9/v1", "FARM_TOKEN_URL": "http://127.0.0.1:9/token"}
    started = command(real, "up", "--detach")
    assert (started.returncode, "no usable credential yet" in started.stdout) == (0, True)
    assert command(real, "credentials", "list", "--json").stdout.strip() == "[]"
    ready = requests.get(f"http://127.0.0.1:{env['PORT']}/readyz", timeout=10)
    assert (ready.status_code, "credentials add" in ready.text) == (503, True)
    command(real, "stop")


def test_the_procfile_runs_under_another_runner(tmp_path: Path, redis_url: str, redis: Redis, upstream: Upstream):
    port = free_port()
    env = environment(
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
            return requests.get(f"{url}/readyz", timeout=2).status_code == 200
        except requests.ConnectionError:
            return False

    eventually(is_ready, within=30)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": "Bearer sk-procfile-0123456789"}
    assert "Uryyb" in requests.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20).text
    runner.terminate()
    runner.wait(30)


def test_tokens_are_imported_with_a_report(tmp_path: Path):
    env = environment(tmp_path / "data")
    command(env, "up", "--detach")
    (tmp_path / "tokens").write_text("one\n\n  two \none\nnot a token\n")
    report = command(env, "credentials", "import", str(tmp_path / "tokens"))
    assert report.stdout == "2 added, 1 duplicates, 1 blanks, 1 invalid\n"
    missing = command(env, "credentials", "import", str(tmp_path / "nope"))
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert command(env, "credentials", "show", "nope").returncode == 1
    assert command(env, "keys", "nonsense").returncode == 2
    secret = command(env, "keys", "create", "--name", "mine").stdout.strip()
    assert secret.startswith("sk-")
    listed = command(env, "keys", "list").stdout
    assert "mine" in listed
    assert secret not in listed
    key_id = listed.splitlines()[-1].split()[0]
    url = f"http://127.0.0.1:{env['PORT']}/v1/models"
    assert requests.get(url, headers={"authorization": f"Bearer {secret}"}, timeout=10).status_code == 200
    assert command(env, "keys", "revoke", key_id).returncode == 0
    headers = {"authorization": f"Bearer {secret}"}
    eventually(lambda: requests.get(url, headers=headers, timeout=10).status_code == 401, within=2)
    assert "enabled: False" in command(env, "keys", "show", key_id).stdout
    command(env, "stop")


def test_the_command_line_tells_its_settings(tmp_path: Path):
    env = environment(tmp_path / "data", FARM_CLIENT_SECRET="hush", FARM_MODELS="a,b")
    checked = command(env, "config", "check").stdout
    assert "pools.default.client_secret = set" in checked
    assert "hush" not in checked
    assert "FARM_MAX_QUEUE=10000" in command(env, "config", "template").stdout
    assert "a, b" in command(env, "pools", "list").stdout
    assert '"models"' in command(env, "pools", "show", "default", "--json").stdout
    assert command(env, "pools", "show", "nope").returncode == 1
    assert command(env, "credentials", "list").returncode == 1
    for name in ("up", "stop", "restart", "status", "logs", "test", "credentials", "keys", "pools", "config"):
        assert command(env, name, "--help").returncode == 0
