"""Two farms for all system tests: an ordinary one, and one with a single account and little patience."""

from collections.abc import Iterator

import pytest

from tests.conftest import start_simulator
from tests.system.farm import Farm, start
from tests.waiting import eventually


def farm_with(
    tmp_path_factory: pytest.TempPathFactory, name: str, accounts: int, more: int = 2, **settings: str
) -> Iterator[Farm]:
    """A farm with so many accounts; its upstream has some more."""
    process, upstream = start_simulator("--accounts", str(accounts + more), "--rotate")
    farm = start(tmp_path_factory.mktemp(name), upstream, accounts, **settings)
    yield farm
    done = farm.command("stop")
    assert done.returncode == 0, done.stderr
    process.terminate()
    process.wait()
    assert process.stdout
    process.stdout.close()
    assert "Traceback" not in farm.log(), farm.log()


@pytest.fixture(scope="session")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    yield from farm_with(tmp_path_factory, "ordinary", 8, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2")


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {
        "FARM_SECRET_KEY": "a key that the front must not have",
        "FARM_MAX_QUEUE": "2",
        "FARM_QUEUE_TIMEOUT": "1.5",
        "FARM_FIRST_BYTE_TIMEOUT": "2",
        "FARM_IDLE_TIMEOUT": "1",
        "FARM_KEEPALIVE": "0.5",
        "FARM_MAX_ATTEMPTS": "1",
        "FARM_MAX_BODY": "1000000",
        "FARM_LOG_FORMAT": "json",
    }
    yield from farm_with(tmp_path_factory, "impatient", 1, **settings)


def rested(farm: Farm) -> Farm:
    """The farm with a well upstream, nothing in flight and every credential in service."""
    farm.upstream.reset()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    credentials = farm.credentials()
    for credential in credentials:
        if credential["state"] != "active":
            farm.admin("PATCH", f"/credentials/{credential['id']}", json={"state": "active"})
    eventually(lambda: farm.live_pool()["workers"]["idle"] == len(credentials), within=20)
    return farm


@pytest.fixture
def farm(ordinary: Farm) -> Farm:
    return rested(ordinary)


@pytest.fixture
def strict(impatient: Farm) -> Farm:
    return rested(impatient)
