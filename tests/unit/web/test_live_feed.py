"""A front takes one snapshot a second for all its viewers, and none without them."""

import time
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


def test_viewer_is_due_at_once_and_then_at_its_own_rate():
    viewer = Viewer("queue", 5, list[object]().append)
    assert viewer.is_due(0.0)
    viewer.offer(b"x", 100.0)
    assert [viewer.is_due(at) for at in (101.0, 104.0, 104.9)] == [False, False, True]


def test_message_is_handed_over_once():
    viewer = Viewer("queue", 1, list[object]().append)
    viewer.offer(b"x", 0.0)
    assert [viewer.wait(0), viewer.wait(0)] == [b"x", b""]


def test_viewer_that_has_ended_waits_no_more():
    viewer = Viewer("queue", 1, list[object]().append)
    viewer.end()
    waits = gevent.spawn(lambda: [viewer.wait(1e6), viewer.wait(1e6)])
    assert waits.get(timeout=PATIENCE) == [b"", b""]


def test_nothing_is_read_while_nobody_is_due(feed: LiveFeed[str], clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_feed, "MAX_CPU_SHARE", 100.0)
    slow = feed.watch("slow", 360_000)
    slow.wait(PATIENCE)
    gevent.sleep(0.1)
    assert clock.asked == [{"slow"}]


def test_one_greenlet_serves_all_viewers(feed: LiveFeed[str], monkeypatch: pytest.MonkeyPatch):
    started: list[object] = []

    class Counted(live_feed.MeasuredGreenlet):
        def start(self) -> None:
            started.append(self)
            super().start()

    monkeypatch.setattr(live_feed, "MeasuredGreenlet", Counted)
    for viewer in [feed.watch("queue", 1), feed.watch("overview", 1)]:
        viewer.wait(PATIENCE)
    assert len(started) == 1


def test_first_snapshot_that_costs_much_is_followed_by_a_long_pause(
    feed: LiveFeed[str], clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    def render(topics: Collection[str]) -> dict[str, bytes]:
        before = time.thread_time()
        while time.thread_time() - before < 0.05:
            pass
        return clock.render(topics)

    feed.render = render
    viewer = feed.watch("queue", 0)
    viewer.wait(PATIENCE)
    gevent.sleep(0.2)
    assert len(clock.asked) == 1


def test_slow_viewer_gets_its_first_message_with_the_others_and_then_fewer(feed: LiveFeed[str], clock: Clock):
    slow, quick = feed.watch("slow", 360_000), feed.watch("quick", 0)
    assert slow.wait(PATIENCE) == b"slow 1"
    eventually(lambda: len(clock.asked) >= 5)
    quick.end()
    slow.end()
    assert clock.asked[0] == {"slow", "quick"}
    assert all(topics == {"quick"} for topics in clock.asked[1:5])


def test_snapshots_take_a_bounded_share_of_a_processor(feed: LiveFeed[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_feed, "TICK_SECONDS", 1.0)
    assert [live_feed.find_pause(seconds) for seconds in (0.0, 0.009, 0.036, 3.0)] == [1.0, 1.0, 4.0, 10.0]
    # Five viewers of a large page, which takes as much to send as to render.
    assert live_feed.find_pause(0.012 + live_feed.estimate_sending(5, 5 * 40 * 1024)) == pytest.approx(4.11, abs=0.01)


def test_only_the_own_time_of_a_snapshot_counts():
    def burn(seconds: float) -> None:
        before = time.thread_time()
        while time.thread_time() - before < seconds:
            pass

    def work() -> None:
        for _ in range(3):
            burn(0.01)
            gevent.sleep(0.001)

    others = [gevent.spawn(lambda: [burn(0.05), gevent.sleep(0)]) for _ in range(5)]
    greenlet = live_feed.MeasuredGreenlet.spawn(work)
    gevent.joinall([greenlet, *others])
    assert 0.03 <= greenlet.cpu_seconds < 0.2


def test_slow_reader_skips_what_it_has_missed(feed: LiveFeed[str], clock: Clock):
    viewer = feed.watch("queue", 1)
    eventually(lambda: len(clock.asked) >= 3)
    newest = viewer.wait(PATIENCE)
    assert newest == f"queue {len(clock.asked)}".encode()


def test_page_that_cannot_be_rendered_costs_the_snapshot_only(
    feed: LiveFeed[str], clock: Clock, caplog: pytest.LogCaptureFixture
):
    faults = [ValueError("a template is broken")]

    def render(topics: Collection[str]) -> dict[str, bytes]:
        if faults:
            raise faults.pop()
        return clock.render(topics)

    feed.render = render
    assert feed.watch("queue", 1).wait(PATIENCE) == b"queue 1"
    assert "a template is broken" in caplog.text


def test_redis_that_is_away_costs_the_snapshot_only(
    feed: LiveFeed[str], clock: Clock, caplog: pytest.LogCaptureFixture
):
    clock.is_broken = True
    viewer = feed.watch("queue", 1)
    eventually(lambda: len(clock.asked) >= 2)
    clock.is_broken = False
    assert viewer.wait(PATIENCE).startswith(b"queue ")
    assert "Redis is away" in caplog.text and "Traceback" not in caplog.text


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
