"""Several pools with several slots, and farm.toml reloaded while requests run."""

import signal
import threading

from tests.system.farm import ADMIN
from tests.system.pools import PoolFarm
from tests.waiting import eventually

NEW_ADMIN = "another-admin-token-for-system-tests"


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
