"""Several pools with several slots, and farm.toml reloaded while requests run."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import clean_environment, free_port
from tests.system.farm import ADMIN, KEY, Farm, chat_body
from tests.upstream import Upstream, first_refresh_tokens, start_simulator
from tests.waiting import eventually

NEW_ADMIN = "another-admin-token-for-system-tests"
POOL_TEMPLATE = """
[pools.{name}]
upstream_url = "{upstream.url}"
token_url = "{upstream.token_url}"
refresh_tokens_file = "{tokens}"
models = ["{model}"]
"""


class PoolFarm:
    """A farm with a farm.toml of the test, in front of two simulators."""

    def __init__(self, home: Path, upstreams: list[Upstream]) -> None:
        self.home = home
        self.upstreams = upstreams
        (home / "tokens.txt").write_text("\n".join(first_refresh_tokens(2)))
        self.write(
            f'admin_token = "{ADMIN}"\n'
            + self.pool("one", 0, "alpha")
            + 'slots = 2\nmap_back = true\nmodel_map = {"mine" = "alpha"}\n'
        )
        settings = {"FARM_CONFIG": str(home / "farm.toml"), "FARM_DATA_DIR": str(home / "data"), "FARM_API_KEY": KEY}
        port = free_port()
        environment = clean_environment(PORT=str(port), **settings)
        self.farm = Farm(f"http://127.0.0.1:{port}", environment, home / "data", upstreams[0])

    def pool(self, name: str, upstream: int, model: str) -> str:
        return POOL_TEMPLATE.format(
            name=name, upstream=self.upstreams[upstream], tokens=self.home / "tokens.txt", model=model
        )

    def write(self, text: str) -> None:
        (self.home / "farm.toml").write_text(text)

    def read(self) -> str:
        return (self.home / "farm.toml").read_text()

    def admin_status(self, token: str) -> int:
        return self.farm.get("/admin/api/v1/live", key=token).status_code

    def chat(self, model: str, **fields: object) -> dict[str, object]:
        response = self.farm.post("/v1/chat/completions", {**chat_body("Hello"), "model": model, **fields})
        return {"status": response.status_code, "model": response.json().get("model")}


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[PoolFarm]:
    simulators = [start_simulator("--accounts", "2") for _ in range(2)]
    pools = PoolFarm(tmp_path, [upstream for _, upstream in simulators])
    result = pools.farm.command("up", "--detach")
    assert result.returncode == 0, result.stdout + result.stderr
    yield pools
    assert pools.farm.command("stop").returncode == 0
    for process, _ in simulators:
        process.terminate()
        process.wait()
        assert process.stdout
        process.stdout.close()
    assert "Traceback" not in pools.farm.log()


def test_reload_adds_a_pool_without_failing_a_request(pools: PoolFarm):
    first, second = pools.upstreams
    first.accounts(slots=2)
    first.pace(delay=0.2)
    assert pools.chat("mine") == {"status": 200, "model": "mine"}
    assert pools.chat("beta")["status"] == 404
    statuses: list[object] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            statuses.append(pools.chat("alpha")["status"])

    clients = [threading.Thread(target=load) for _ in range(6)]
    for client in clients:
        client.start()
    eventually(lambda: first.counters()["in_flight"] == 4)

    # An invalid file changes nothing, and the error names its line.
    good = pools.read()
    pools.write(good + "weihgt = 2\n")
    assert "line" in pools.farm.command("reload").stderr

    pools.write(good + pools.pool("two", 1, "beta"))
    assert pools.farm.command("reload").returncode == 0
    eventually(lambda: pools.chat("beta")["status"] == 200)
    assert second.counters()["served"] >= 1
    listed = pools.farm.json("status")["pools"]
    assert [pool["name"] for pool in listed] == ["one", "two"]
    eventually(lambda: sum(pools.farm.live_pool()["workers"].values()) == 4)
    stop.set()
    for client in clients:
        client.join()
    assert set(statuses) == {200}
    assert first.counters()["collisions"] == 0

    # A new admin token replaces the old one.
    pools.write(pools.read().replace(ADMIN, NEW_ADMIN))
    assert pools.farm.command("reload").returncode == 0
    eventually(lambda: pools.admin_status(NEW_ADMIN) == 200 and pools.admin_status(ADMIN) == 401)


def test_reload_of_an_invalid_file_changes_nothing(pools: PoolFarm):
    children = [pools.farm.processes(module)[0] for module in ("web.gunicorn_conf", "workers")]
    good = pools.read()
    pools.write(good + "weight = 0\n")
    for child in children:
        master = child.parent()
        assert master is not None
        master.send_signal(signal.SIGHUP)
    eventually(lambda: pools.farm.log().count("the settings are unchanged") == 2)
    assert "farm.toml, line" in pools.farm.log()
    assert pools.chat("alpha")["status"] == 200
    pools.write(good)
