"""Farms for all system tests: an ordinary one, one with a single account and short timeouts, one of several pools."""

from collections.abc import Iterator

import pytest

from tests.system.farm import Farm, reset_farm, run_farm
from tests.system.pools import PoolFarm
from tests.upstream import run_upstream


@pytest.fixture(scope="session")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {"FARM_WORKER_PROCESSES": "2", "WEB_CONCURRENCY": "2", "FARM_REFUSAL_PATIENCE": "6"}
    yield from run_farm(tmp_path_factory, "ordinary", 8, signs_in=True, **settings)


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {
        "FARM_SECRET_KEY": "a key that the front must not have",
        "FARM_MAX_QUEUE": "2",
        "FARM_QUEUE_TIMEOUT": "6",
        "FARM_FIRST_BYTE_TIMEOUT": "6",
        "FARM_IDLE_TIMEOUT": "4",
        "FARM_KEEPALIVE": "0.5",
        "FARM_MAX_ATTEMPTS": "1",
        "FARM_MAX_BODY": "1000000",
        "FARM_BODY_TIMEOUT": "3",
        "FARM_LOG_FORMAT": "json",
        # Nobody listens there.
        "FARM_ALERT_URLS": "json://127.0.0.1:9/hook-secret",
    }
    yield from run_farm(tmp_path_factory, "impatient", 1, **settings)


@pytest.fixture(scope="session")
def pool_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolFarm]:
    with run_upstream("--accounts", "16") as first, run_upstream("--accounts", "2") as second:
        pool_farm = PoolFarm(tmp_path_factory.mktemp("pools"), [first, second])
        result = pool_farm.farm.command("up", "--detach")
        assert result.returncode == 0, result.stdout + result.stderr
        yield pool_farm
        assert pool_farm.farm.command("stop").returncode == 0
    assert "Traceback" not in pool_farm.farm.log()


@pytest.fixture
def pools(pool_farm: PoolFarm) -> Iterator[PoolFarm]:
    """The farm of several pools; what a test has changed in farm.toml is gone with the next reload."""
    yield pool_farm
    pool_farm.write(pool_farm.first_settings)
    for upstream in pool_farm.upstreams:
        upstream.restart()


@pytest.fixture
def farm(ordinary: Farm) -> Farm:
    return reset_farm(ordinary)


@pytest.fixture
def strict(impatient: Farm) -> Farm:
    return reset_farm(impatient)
