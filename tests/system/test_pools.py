"""Several pools, accounts with several slots, and farm.toml read again while requests run."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import clean_environment, free_port
from tests.system.farm import ADMIN, KEY, Farm, chat_body
from tests.upstream import Upstream, first_refresh_tokens, start_simulator
from tests.waiting import eventually

POOL = """
[pools.{name}]
upstream_url = "{upstream.url}"
token_url = "{upstream.token_url}"
refresh_tokens_file = "{tokens}"
models = ["{model}"]
"""


class Pools:
    """A farm whose farm.toml is the test's, in front of two simulators."""

    def __init__(self, home: Path, upstreams: list[Upstream]) -> None:
        self.home = home
        self.upstreams = upstreams
        (home / "tokens.txt").write_text("\n".join(first_refresh_tokens(2)))
        self.write(self.pool("one", 0, "alpha") + 'slots = 2\nmap_back = true\nmodel_map = {"mine" = "alpha"}\n')
        settings = {"FARM_CONFIG": str(home / "farm.toml"), "FARM_DATA_DIR": str(home / "data"), "FARM_API_KEY": KEY}
        port = free_port()
        environment = clean_environment(PORT=str(port), FARM_ADMIN_TOKEN=ADMIN, **settings)
        self.farm = Farm(f"http://127.0.0.1:{port}", environment, home / "data", upstreams[0])

    def pool(self, name: str, upstream: int, model: str) -> str:
        return POOL.format(name=name, upstream=self.upstreams[upstream], tokens=self.home / "tokens.txt", model=model)

    def write(self, text: str) -> None:
        (self.home / "farm.toml").write_text(text)

    def read(self) -> str:
        return (self.home / "farm.toml").read_text()

    def chat(self, model: str, **fields: object) -> dict[str, object]:
        answer = self.farm.post("/v1/chat/completions", {**chat_body("Hello"), "model": model, **fields})
        return {"status": answer.status_code, "model": answer.json().get("model")}


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    simulators = [start_simulator("--accounts", "2") for _ in range(2)]
    made = Pools(tmp_path, [upstream for _, upstream in simulators])
    done = made.farm.command("up", "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    yield made
    assert made.farm.command("stop").returncode == 0
    for process, _ in simulators:
        process.terminate()
        process.wait()
        assert process.stdout
        process.stdout.close()
    assert "Traceback" not in made.farm.log()


def test_a_new_pool_serves_soon_after_a_reload_and_nobody_notices(pools: Pools):
    first, second = pools.upstreams
    first.accounts(slots=2)
    first.pace(delay=0.2)
    assert pools.chat("mine") == {"status": 200, "model": "mine"}
    assert pools.chat("beta")["status"] == 404
    statuses: list[object] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            statuses.append(pools.chat("alpha")["status"])

    clients = [threading.Thread(target=load) for _ in range(6)]
    for client in clients:
        client.start()
    eventually(lambda: first.counters()["in_flight"] == 4)

    # A file that is bad changes nothing and says why.
    good = pools.read()
    pools.write(good + "weihgt = 2\n")
    assert "line" in pools.farm.command("reload").stderr

    pools.write(good + pools.pool("two", 1, "beta"))
    assert pools.farm.command("reload").returncode == 0
    eventually(lambda: pools.chat("beta")["status"] == 200, within=10)
    assert second.counters()["served"] >= 1
    workers = pools.farm.json("status")["pools"]
    assert [pool["name"] for pool in workers] == ["one", "two"]
    eventually(lambda: sum(pools.farm.live_pool()["workers"].values()) == 4, within=10)
    done.set()
    for client in clients:
        client.join()
    assert set(statuses) == {200}
    assert first.counters()["collisions"] == 0


def test_a_bad_file_stops_no_process_either(pools: Pools):
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
