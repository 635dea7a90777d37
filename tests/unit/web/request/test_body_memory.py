"""Memory for bodies on their way in is bounded, and shared among keys."""

from typing import Any

import gevent
import pytest

from shared.errors import ApiError
from web.request.body_memory import UNRESERVED_BYTES, BodyMemory, Reservation


def hold(memory: BodyMemory, owner: str, size: int) -> Reservation:
    reservation = Reservation(memory, owner)
    reservation.reserve(size)
    return reservation


def try_hold(memory: BodyMemory, owner: str, size: int) -> "gevent.Greenlet[Any]":
    """A greenlet that holds the memory from when it is granted."""
    greenlet = gevent.spawn(hold, memory, owner, size)
    gevent.idle()
    return greenlet


def test_body_waits_until_there_is_room():
    memory = BodyMemory(100)
    first = hold(memory, "a", 60)
    second, third = try_hold(memory, "b", 60), try_hold(memory, "c", 10)
    assert (memory.reserved, second.ready(), third.ready()) == (60, False, False)
    with first:
        pass
    second.get(timeout=30)
    third.get(timeout=30)
    assert memory.reserved == 70


def test_key_holds_half_at_most_and_does_not_block_others():
    memory = BodyMemory(100)
    hold(memory, "a", 30)
    own, other = try_hold(memory, "a", 30), try_hold(memory, "b", 60)
    assert (own.ready(), other.ready()) == (False, True)


def test_body_larger_than_all_memory_takes_all_of_it():
    memory = BodyMemory(100)
    with hold(memory, "a", 1000):
        assert memory.reserved == 100
    assert memory.reserved == 0


def test_wait_ends_with_a_429(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("web.request.body_memory.WAIT_SECONDS", 0.05)
    memory = BodyMemory(100)
    first = hold(memory, "a", 100)
    with pytest.raises(ApiError) as caught:
        hold(memory, "b", 1)
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert caught.value.headers["retry-after"]
    with first:
        pass
    assert hold(memory, "b", 100)


def test_killed_waiter_leaves_nothing():
    memory = BodyMemory(100)
    first = hold(memory, "a", 100)
    try_hold(memory, "b", 50).kill()
    with first:
        pass
    assert memory.reserved == 0


def test_resized_reservation_holds_what_is_needed():
    memory = BodyMemory(1_000_000)
    with Reservation(memory, "a") as reservation:
        for size in (100, 200_000, 50_000, 400_000, 0, 300_000):
            reservation.resize(size)
            assert memory.reserved == (size if size > UNRESERVED_BYTES else 0)
    assert memory.reserved == 0


def test_growing_reservation_waits_for_others_but_not_for_itself():
    memory = BodyMemory(1_000_000)
    with Reservation(memory, "a") as reservation, Reservation(memory, "b") as other:
        reservation.resize(400_000)
        other.resize(400_000)
        grown = gevent.spawn(reservation.resize, 700_000)
        gevent.sleep(0.05)
        assert not grown.ready()
        other.resize(0)
        grown.get(timeout=30)
        assert memory.reserved == 700_000
