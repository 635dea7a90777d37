"""Two farms for all system tests: an ordinary one, and one with a single account and short timeouts."""

from collections.abc import Iterator

import pytest

from tests.system.farm import Farm, reset_farm, run_farm


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
    }
    yield from run_farm(tmp_path_factory, "impatient", 1, **settings)


@pytest.fixture
def farm(ordinary: Farm) -> Farm:
    return reset_farm(ordinary)


@pytest.fixture
def strict(impatient: Farm) -> Farm:
    return reset_farm(impatient)
