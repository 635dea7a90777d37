"""Kept answers have a bound in bytes that is exact: the least recently used go first."""

import random
import time

import gevent
import pytest
from redis import Redis

from shared import keys
from shared.protocol.messages import Frame, FrameKind, Head
from tests.waiting import eventually
from web.replay.answers.answer_store import AnswerStore, KeptAnswer, NameReused, OtherRun, Share
from web.replay.answers.sealed_answer import seal

#: What an answer is counted for beside its pieces.
ENTRY_BYTES = 430


def build_frames(size: int) -> list[Frame]:
    """An answer that can't be compressed."""
    body = Frame(FrameKind.DATA, 1, random.Random(size).randbytes(size))
    return [Frame(FrameKind.HEAD, 0, Head(200).encode()), body, Frame(FrameKind.END, 2)]


def share(name: str, ttl: float = 60.0, print_: str = "") -> Share:
    return Share(name, b"k" * 32, print_, ttl)


def measure(redis: Redis) -> int:
    """The bytes that are really kept."""
    answers = [redis.lrange(name, 1, -1) for name in redis.keys("farm:answer:*")]
    return sum(ENTRY_BYTES + sum(map(len, pieces)) for pieces in answers)


def list_names(redis: Redis) -> set[str]:
    return {name.decode().rpartition(":")[2] for name in redis.keys("farm:answer:*")}


def find(store: AnswerStore, name: str) -> bool:
    return isinstance(store.claim("other", [share(name)], 1), KeptAnswer)


def test_bytes_never_exceed_the_bound_and_what_was_used_last_stays(redis: Redis):
    size = ENTRY_BYTES + len(b"".join(seal(build_frames(1000), b"k" * 32)))
    store = AnswerStore(redis, "here", 3 * size)
    for name in "abc":
        assert store.keep(share(name), "r", build_frames(1000))
    assert measure(redis) == 3 * size == int(redis.hget(keys.ANSWER_SIZES, "total"))
    time.sleep(0.002)
    assert find(store, "a")
    assert store.keep(share("d"), "r", build_frames(1000))
    assert list_names(redis) == {"a", "c", "d"}
    assert store.keep(share("e"), "r", build_frames(1001))
    assert measure(redis) == int(redis.hget(keys.ANSWER_SIZES, "total")) == 2 * size + 1
    assert not store.keep(share("f"), "r", build_frames(5000))
    assert list_names(redis) == {"d", "e"}


def test_answer_that_takes_the_place_of_another_is_counted_once(redis: Redis):
    store = AnswerStore(redis, "here", 100_000)
    for size in (3000, 2000, 1000):
        store.keep(share("a"), "r", build_frames(size))
    assert measure(redis) == int(redis.hget(keys.ANSWER_SIZES, "total"))
    assert redis.zcard(keys.ANSWERS_USED) == redis.zcard(keys.ANSWER_ENDS) == 1


def test_expired_answers_are_taken_off_the_books_and_no_later_run(redis: Redis):
    store = AnswerStore(redis, "here", 100_000)
    store.keep(share("a", 0.01), "r", build_frames(3000))
    eventually(lambda: not redis.exists(keys.answer("a")))
    assert store.claim("r2", [share("a")], 60) is None
    store.keep(share("b"), "r", build_frames(1000))
    assert measure(redis) == int(redis.hget(keys.ANSWER_SIZES, "total"))
    assert redis.hget(keys.shared_run("a"), "run") == b"r2"


def test_large_answer_is_stored_and_read_in_pieces(redis: Redis):
    store, frames = AnswerStore(redis, "here", 10_000_000), build_frames(1_000_000)
    assert store.keep(share("a"), "r", frames)
    assert redis.keys("farm:answer-upload:*") == []
    found = store.claim("r2", [share("a")], 60)
    assert isinstance(found, KeptAnswer)
    assert found.frames[1].payload == frames[1].payload
    redis.lset(keys.answer("a"), 2, b"x" * 100)
    assert store.claim("r2", [share("a")], 60) is None


def test_answer_is_kept_under_several_names_at_once(redis: Redis):
    store, frames = AnswerStore(redis, "here", 10_000_000), build_frames(500_000)
    keeping = [gevent.spawn(store.keep, share(name), "r", frames) for name in "abc"]
    assert [each.get(timeout=30) for each in keeping] == [True] * 3
    assert all(find(store, name) for name in "abc")


def test_run_belongs_to_one_front_until_it_ends(redis: Redis):
    redis.zadd(keys.FRONTS, {"first": 1})
    first, second = AnswerStore(redis, "first", 1000), AnswerStore(redis, "second", 1000)
    shares = [share("a"), share("b")]
    assert first.claim("r1", shares, 60) is None
    assert first.claim("r1", shares, 60) is None, "a repeated claim is confirmed"
    assert second.claim("r2", shares[1:], 60) == OtherRun(shares[1], "first", "r1")
    second.release("r2", ["a", "b"])
    assert second.claim("r2", shares, 60) == OtherRun(shares[0], "first", "r1")
    first.release("r1", ["a", "b"])
    assert second.claim("r2", shares, 60) is None


def test_name_of_another_request_is_refused_before_anything_is_claimed(redis: Redis):
    redis.zadd(keys.FRONTS, {"here": 1})
    store = AnswerStore(redis, "here", 10_000)
    store.keep(share("a", print_="p"), "r", build_frames(10))
    store.claim("r", [share("b", print_="p")], 60)
    for name in "ab":
        with pytest.raises(NameReused):
            store.claim("r2", [share("c"), share(name, print_="other")], 60)
    assert not redis.exists(keys.shared_run("c"))


@pytest.mark.parametrize("print_", ["", "p"])
@pytest.mark.parametrize("has_died", [True, False])
def test_claim_of_a_front_that_has_died_or_ended_is_void(redis: Redis, has_died: bool, print_: str):
    """The mark of one that has died may be gone before a claim that lasts for hours, but not before its entry."""
    redis.zadd(keys.FRONTS, {"first": 1})
    redis.delete(keys.front_gone("first"))
    first, second = AnswerStore(redis, "first", 1000), AnswerStore(redis, "second", 1000)
    shares = [share("a", print_=print_)]
    assert first.claim("r1", shares, 60) is None
    run = second.claim("r2", shares, 60)
    assert run == OtherRun(shares[0], "first", "r1") and second.is_running(run)
    if has_died:
        redis.set(keys.front_gone("first"), 1)
    else:
        redis.zrem(keys.FRONTS, "first")
    assert not second.is_running(run)
    assert second.claim("r2", [share("a", print_=print_ and "other")], 60) is None
