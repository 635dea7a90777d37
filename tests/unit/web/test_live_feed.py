"""A front takes one snapshot a second for all its viewers, and none without them."""

from collections.abc import Collection

import gevent
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.waiting import eventually
from web import live_feed
from web.live_feed import LiveFeed, Viewer

#: Seconds that a viewer waits for a message.
PATIENCE = 30.0


class Clock:
    """Renders `<topic> <number of the snapshot>`, and knows which topics it was asked for."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.is_broken = False

    def render(self, topics: Collection[str]) -> dict[str, bytes]:
        self.asked.append(set(topics))
        if self.is_broken:
            raise RedisConnectionError("Redis is away")
        return {topic: f"{topic} {len(self.asked)}".encode() for topic in topics}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def feed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> LiveFeed[str]:
    monkeypatch.setattr(live_feed, "TICK_SECONDS", 0.01)
    feed = LiveFeed[str]()
    feed.render = clock.render
    return feed


def test_all_viewers_of_a_topic_get_the_same_bytes(feed: LiveFeed[str], clock: Clock):
    viewers = [feed.watch("queue", 1), feed.watch("queue", 1), feed.watch("overview", 1)]
    first, second, other = (viewer.wait(PATIENCE) for viewer in viewers)
    assert (first, other) == (b"queue 1", b"overview 1")
    assert first is second
    assert clock.asked == [{"queue", "overview"}]


def test_nothing_is_read_while_nobody_watches(feed: LiveFeed[str], clock: Clock):
    viewer = feed.watch("queue", 1)
    viewer.wait(PATIENCE)
    viewer.end()
    gevent.sleep(0.05)
    count = len(clock.asked)
    gevent.sleep(0.05)
    assert len(clock.asked) == count
    assert feed.watch("queue", 1).wait(PATIENCE) == f"queue {count + 1}".encode()


def test_slow_rate_gets_its_first_message_at_once_and_then_one_in_five(feed: LiveFeed[str], clock: Clock):
    slow, quick = feed.watch("slow", 5), feed.watch("quick", 1)
    seen = [slow.wait(PATIENCE), slow.wait(PATIENCE), slow.wait(PATIENCE)]
    quick.end()
    slow.end()
    assert seen == [b"slow 1", b"slow 5", b"slow 10"]
    assert [number for number, topics in enumerate(clock.asked, 1) if "slow" in topics][:3] == [1, 5, 10]


def test_slow_reader_skips_what_it_has_missed(feed: LiveFeed[str], clock: Clock):
    viewer = feed.watch("queue", 1)
    eventually(lambda: len(clock.asked) >= 3)
    newest = viewer.wait(PATIENCE)
    assert newest == f"queue {len(clock.asked)}".encode()


def test_redis_that_is_away_costs_the_snapshot_only(feed: LiveFeed[str], clock: Clock):
    clock.is_broken = True
    viewer = feed.watch("queue", 1)
    eventually(lambda: len(clock.asked) >= 2)
    clock.is_broken = False
    assert viewer.wait(PATIENCE).startswith(b"queue ")


def test_closed_feed_ends_its_viewers_and_takes_no_more(feed: LiveFeed[str]):
    viewer = feed.watch("queue", 1)
    waiting = gevent.spawn(drain, viewer)
    feed.close()
    assert waiting.get(timeout=PATIENCE) == []
    assert feed.watch("queue", 1).has_ended


def drain(viewer: Viewer[str]) -> list[bytes]:
    messages = []
    while not viewer.has_ended:
        messages.append(viewer.wait(PATIENCE))
    return [message for message in messages if message]
