"""A batch is run by the front that has its lease, and by no other."""

from redis import Redis

from shared import clock, keys
from shared.batches.batch import Batch
from shared.batches.batch_leases import BatchLeases
from shared.batches.batch_lines import BatchLines
from shared.batches.batch_store import Batches
from tests.integration.shared.batches.batch_steps import add, begin


def test_a_front_without_the_lease_begins_nothing(leases: BatchLeases, lines: BatchLines, batch: Batch):
    assert not leases.hold(batch.id, "f2") and not begin(lines, batch, 1, "f2")
    leases.give_up(batch.id, "f1")
    assert not begin(lines, batch, 1)
    assert leases.hold(batch.id, "f2") and begin(lines, batch, 1, "f2")


def test_the_lease_of_a_front_that_has_ended_is_taken_at_once(
    store: Batches, leases: BatchLeases, lines: BatchLines, batch: Batch, redis: Redis
):
    redis.zadd(keys.FRONTS, {"f1": clock.now()})
    assert leases.take([batch.id], "f2", 5) == []
    redis.set(keys.front_gone("f1"), 1)
    other = add(store)
    assert leases.take([batch.id, other.id], "f2", -1) == []
    assert leases.take([batch.id, other.id], "f2", 1) == [batch.id]
    assert leases.take([batch.id, other.id], "f2", 5) == [batch.id, other.id]
    assert not begin(lines, batch, 1)
    assert begin(lines, batch, 1, "f2")
