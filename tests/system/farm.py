"""A whole farm, started as an operator starts it, with its own simulator."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from bench.processes import read_command_line, read_name
from launcher.processes.data_dir import DataDir, FarmRecord
from tests.environment import ROOT, clean_environment, free_port
from tests.upstream import Upstream, first_refresh_tokens, start_simulator
from tests.waiting import eventually
from workers.refresher.process import PROCESS_NAME

KEY = "sk-system-test-0123456789"
ADMIN = "admin-token-for-system-tests"


@dataclass
class Farm:
    """A running farm."""

    url: str
    environment: dict[str, str]
    data: Path
    upstream: Upstream
    admin_token: str = ADMIN

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def command(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """`./farm …`, in the environment of this farm."""
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            env=self.environment,
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def json(self, *arguments: str, stdin: str = "") -> Any:
        result = self.command(*arguments, "--json", stdin=stdin)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def admin(self, method: str, path: str, **options: Any) -> requests.Response:
        """A request to the admin API, which costs milliseconds where a command costs a second."""
        headers = {"authorization": f"Bearer {self.admin_token}"}
        response = requests.request(method, f"{self.url}/admin/api/v1{path}", headers=headers, timeout=30, **options)
        assert response.ok, response.text
        return response

    def credentials(self) -> list[dict[str, Any]]:
        """Every credential, as `./farm credentials list --json` prints it."""
        return list(self.admin("GET", "/credentials").json()["data"])

    def states(self, credential_id: str) -> list[tuple[str, str]]:
        """The states that a credential was in and why, newest first."""
        history = self.admin("GET", f"/credentials/{credential_id}/history").json()["data"]
        return [(change["state"], change["reason"]) for change in history]

    def live_pool(self) -> dict[str, Any]:
        """The first pool, as `./farm status --json` prints it."""
        return dict(self.admin("GET", "/live").json()["pools"][0])

    @property
    def record(self) -> FarmRecord:
        """What the launcher keeps of the running farm in its data dir."""
        record = DataDir(str(self.data)).read_record()
        assert record is not None
        return record

    def redis_url(self) -> str:
        return self.record.redis_url

    def log(self) -> str:
        return (self.data / "farm.log").read_text()

    def post(
        self, path: str, body: Any = None, key: str = KEY, timeout: float = 30, **options: Any
    ) -> requests.Response:
        headers = {"authorization": f"Bearer {key}", **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        return requests.post(self.url + path, headers=headers, timeout=timeout, **options)

    def get(self, path: str, key: str = KEY, **options: Any) -> requests.Response:
        headers = {"authorization": f"Bearer {key}", **options.pop("headers", {})}
        return requests.get(self.url + path, headers=headers, timeout=30, **options)

    def chat(self, text: str = "Hello", **fields: Any) -> requests.Response:
        stream = bool(fields.get("stream"))
        return self.post("/v1/chat/completions", chat_body(text, **fields), stream=stream)

    def processes(self, module: str) -> list[psutil.Process]:
        """The worker processes (`-m workers`) or fronts (`gunicorn`)."""
        return [child for child in self._children(module) if read_name(child) not in ("", PROCESS_NAME)]

    def refresher(self) -> psutil.Process:
        """The token refresher."""
        (refresher,) = [child for child in self._children("-m workers") if read_name(child) == PROCESS_NAME]
        return refresher

    def _children(self, module: str) -> list[psutil.Process]:
        launcher = psutil.Process(self.record.pid)
        masters = [child for child in launcher.children() if module in read_command_line(child)]
        return [child for master in masters for child in master.children()]

    def metric(self, name: str) -> float:
        """The sum of a metric over all labels."""
        lines = requests.get(self.url + "/metrics", timeout=10).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{")))


def chat_body(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": "sim-translate", "messages": [{"role": "user", "content": text}], **fields}


def events(response: requests.Response) -> list[str]:
    """The data of every event, and every comment."""
    parts = response.content.decode().split("\n\n")
    return [part.removeprefix("data: ") for part in parts if part]


def streamed_text(response: requests.Response) -> str:
    data = [event for event in events(response) if not event.startswith(":")]
    assert data[-1] == "[DONE]", data[-1:]
    deltas = [json.loads(event)["choices"] for event in data[:-1]]
    return "".join(choices[0]["delta"].get("content", "") for choices in deltas if choices)


def start_farm(data: Path, upstream: Upstream, accounts: int, *, signs_in: bool = False, **settings: str) -> Farm:
    """Runs `./farm up --detach` with these settings, in a data dir of its own.

    `signs_in`: with the simulator as issuer, so that its accounts are known and may sign in.
    """
    if signs_in:
        settings = {"FARM_ISSUER": upstream.base, "FARM_CLIENT_ID": "farm", **settings}
    data.mkdir(parents=True, exist_ok=True)
    (data / "tokens.txt").write_text("\n".join(first_refresh_tokens(accounts)))
    secrets = {"FARM_API_KEY": KEY, "FARM_ADMIN_TOKEN": ADMIN}
    return start_new_farm(data, upstream, FARM_REFRESH_TOKENS_FILE=str(data / "tokens.txt"), **secrets, **settings)


def start_new_farm(data: Path, upstream: Upstream, **settings: str) -> Farm:
    """Runs `./farm up --detach` with these settings, and else as a newcomer has them: without tokens and secrets."""
    port = free_port()
    settings = {"PORT": str(port), "FARM_UPSTREAM_URL": upstream.url, "FARM_TOKEN_URL": upstream.token_url, **settings}
    farm = Farm(f"http://127.0.0.1:{port}", clean_environment(FARM_DATA_DIR=str(data), **settings), data, upstream)
    result = farm.command("up", "--detach")
    assert result.returncode == 0, result.stdout + result.stderr + (farm.log() if (data / "farm.log").exists() else "")
    if printed := re.search(r"admin token \(shown once\): (\S+)", result.stdout):
        farm.admin_token = printed[1]
    return farm


def run_farm(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    accounts: int,
    more: int = 2,
    *,
    signs_in: bool = False,
    **settings: str,
) -> Iterator[Farm]:
    """A farm with `accounts` credentials; its simulator has `more` accounts besides."""
    process, upstream = start_simulator("--accounts", str(accounts + more), "--rotate")
    farm = start_farm(tmp_path_factory.mktemp(name), upstream, accounts, signs_in=signs_in, **settings)
    yield farm
    result = farm.command("stop")
    assert result.returncode == 0, result.stderr
    process.terminate()
    process.wait()
    assert process.stdout
    process.stdout.close()
    assert "Traceback" not in farm.log(), farm.log()


def reset_farm(farm: Farm) -> Farm:
    """Resets the upstream, waits until nothing is in flight, and enables every credential."""
    farm.upstream.reset()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    credentials = farm.credentials()
    for credential in credentials:
        if credential["state"] != "active":
            farm.admin("PATCH", f"/credentials/{credential['id']}", json={"state": "active"})
    eventually(lambda: farm.live_pool()["workers"]["idle"] == len(credentials))
    return farm
