"""Fixtures of the integration tests."""

from collections.abc import Iterator

import pytest
from redis import Redis

from shared.credentials.unsealing import Unsealer
from tests.integration.harness import Workshop
from tests.upstream import Upstream


@pytest.fixture
def workshop(redis: Redis, redis_url: str, opener: Unsealer, upstream: Upstream) -> Iterator[Workshop]:
    made = Workshop(redis, redis_url, opener, upstream)
    yield made
    made.close()
