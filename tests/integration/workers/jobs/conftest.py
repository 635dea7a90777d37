"""Fixtures of the tests of jobs."""

import pytest
from redis import Redis

from tests.integration.workers.jobs.simulated_pool import SimulatedPool


@pytest.fixture
def pool(redis: Redis) -> SimulatedPool:
    return SimulatedPool(redis)
