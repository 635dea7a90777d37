"""The lease of a batch ends when it is given up, and when another front has it."""

import gevent
import pytest
from redis import Redis

from shared import keys
from shared.batches.batch_leases import BatchLeases
from web.batches import batch_lease
from web.batches.batch_lease import BatchLease


@pytest.fixture
def lease(redis: Redis) -> BatchLease:
    leases = BatchLeases(redis)
    leases.hold("b", "f1")
    return BatchLease(leases, "b", "f1")


def test_a_lease_that_was_given_up_is_free(lease: BatchLease, redis: Redis):
    assert not lease.ended.is_set()
    lease.give_up()
    assert lease.ended.is_set() and not redis.exists(keys.batch_lease("b"))


def test_a_lease_that_another_front_has_is_lost(lease: BatchLease, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_lease, "RENEWAL_SECONDS", 0.01)
    renewal = gevent.spawn(lease.renew)
    redis.set(keys.batch_lease("b"), "f2")
    renewal.get(timeout=30)
    assert lease.ended.is_set()
    lease.give_up()
    assert redis.get(keys.batch_lease("b")) == b"f2"
