"""Fixtures of the tests of batches."""

from collections.abc import Iterator

import pytest
from redis import Redis

from shared.batches.batch import Batch
from shared.batches.batch_leases import BatchLeases
from shared.batches.batch_lines import BatchLines
from shared.batches.batch_store import Batches
from shared.redis_connection.auto_pipeline import AutoPipeline
from tests.builders import stand_in_input
from tests.integration.shared.batches.batch_steps import add


@pytest.fixture
def store(redis: Redis) -> Iterator[Batches]:
    with stand_in_input(redis, "file-1"):
        yield Batches(redis)


@pytest.fixture
def leases(redis: Redis) -> BatchLeases:
    return BatchLeases(redis)


@pytest.fixture
def lines(redis: Redis) -> BatchLines:
    return BatchLines(redis, AutoPipeline(redis))


@pytest.fixture
def batch(store: Batches, leases: BatchLeases) -> Batch:
    """One that is in progress, with the lease of the front `f1`."""
    batch = add(store, status="in_progress", total=3)
    assert leases.hold(batch.id, "f1")
    return batch
