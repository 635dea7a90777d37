"""Feeds pages that show what goes on now: one snapshot a second for all of a front's viewers, and none without them.

Snapshots take a bounded share of a processor, whoever watches: what costs more changes less often.
"""

import logging
import time
from collections.abc import Callable, Collection, Hashable
from typing import Any, Generic, TypeVar

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

log = logging.getLogger("farm.web")
Topic = TypeVar("Topic", bound=Hashable)
#: Seconds between two snapshots: usually, and at most.
TICK_SECONDS, MAX_TICK_SECONDS = 1.0, 10.0
#: Share of a processor that snapshots may take, with sending them, as estimated: it comes to twice as much.
MAX_CPU_SHARE = 0.009
#: CPU time that sending a message takes, in seconds, and each KB of it: as measured on a slow machine.
SEND_SECONDS, SEND_SECONDS_PER_KB = 0.001, 0.0001
#: Viewers of one front; further ones get a single message each time they ask.
MAX_VIEWERS = 20


def render_nothing(topics: Collection[Any]) -> dict[Any, bytes]:
    return {}


class Viewer(Generic[Topic]):
    """One who watches a topic. Holds the newest message only: a slow reader skips what it has missed."""

    def __init__(self, topic: Topic, every: int, on_end: "Callable[[Viewer[Topic]], None]") -> None:
        self.topic = topic
        #: Ticks from one message to the next, and the monotonic time of the next one; the first one comes at once.
        self._every, self._next_at = every, 0.0
        self.has_ended = False
        self._message = b""
        self._woken = Event()
        self._on_end = on_end

    def is_due(self, now: float) -> bool:
        return now >= self._next_at

    def offer(self, message: bytes, now: float) -> None:
        """Hands over a message of that monotonic time."""
        # Half a tick early is no reason to wait for another snapshot.
        self._next_at = now + (self._every - 0.5) * TICK_SECONDS
        self._message = message
        self._woken.set()

    def wait(self, timeout: float) -> bytes:
        """The next message; b'' if none comes within `timeout` seconds, or the viewer has ended."""
        self._woken.wait(timeout)
        message, self._message = self._message, b""
        if not self.has_ended:
            self._woken.clear()
        return message

    def end(self) -> None:
        """Makes `wait` return for good; may be called again."""
        self.has_ended = True
        self._on_end(self)
        self._woken.set()


class MeasuredGreenlet(gevent.Greenlet):  # type: ignore[misc]
    """Knows its own CPU time, without that of the greenlets that run while it waits."""

    cpu_seconds = 0.0

    def switch(self, *arguments: Any) -> Any:
        """gevent: called by the hub; comes back when this greenlet waits or ends."""
        before = time.thread_time()
        try:
            return super().switch(*arguments)
        finally:
            self.cpu_seconds += time.thread_time() - before


class LiveFeed(Generic[Topic]):
    """Renders each topic that is due once, however many watch it, and hands all of them the same bytes."""

    def __init__(self) -> None:
        #: Renders topics; set when the app is built.
        self.render: Callable[[Collection[Topic]], dict[Topic, bytes]] = render_nothing
        self._viewers: set[Viewer[Topic]] = set()
        self._is_running = False
        self._is_closed = False

    def __len__(self) -> int:
        """How many watch."""
        return len(self._viewers)

    @property
    def is_full(self) -> bool:
        return len(self._viewers) >= MAX_VIEWERS

    def watch(self, topic: Topic, every: int) -> Viewer[Topic]:
        """Adds a viewer, who gets the next snapshot, and from then on one every so many seconds (ticks)."""
        viewer = Viewer(topic, every, self._viewers.discard)
        if self._is_closed:
            viewer.end()
            return viewer
        self._viewers.add(viewer)
        if not self._is_running:
            self._is_running = True
            MeasuredGreenlet.spawn(self._run)
        return viewer

    def close(self) -> None:
        """Ends all viewers, present and future: the front retires."""
        self._is_closed = True
        for viewer in list(self._viewers):
            viewer.end()

    def _run(self) -> None:
        greenlet, pause = gevent.getcurrent(), TICK_SECONDS
        try:
            while self._viewers:
                gevent.sleep(pause)
                now, before = time.monotonic(), greenlet.cpu_seconds
                size = self._serve([viewer for viewer in self._viewers if viewer.is_due(now)], now)
                # What this greenlet has used since it was last resumed is not counted yet.
                gevent.sleep(0)
                pause = find_pause(greenlet.cpu_seconds - before + estimate_sending(len(self._viewers), size))
        finally:
            self._is_running = False

    def _serve(self, due: list[Viewer[Topic]], now: float) -> int:
        """Returns how many bytes are handed to viewers."""
        try:
            messages = self.render({viewer.topic for viewer in due}) if due else {}
        except RedisError as error:
            log.warning("can't take a snapshot for the console: %s", error, extra={"action": "redis_lost"})
            return 0
        except Exception:
            log.exception("can't render a snapshot for the console", extra={"action": "chore_failed"})
            return 0
        size = 0
        for viewer in due:
            if message := messages.get(viewer.topic):
                viewer.offer(message, now)
                size += len(message)
        return size


def estimate_sending(messages: int, size: int) -> float:
    """CPU seconds that it takes the viewers' greenlets to send so many bytes."""
    return messages * SEND_SECONDS + size / 1024 * SEND_SECONDS_PER_KB


def find_pause(cpu_seconds: float) -> float:
    """Seconds until the next snapshot, after one that has taken so much CPU time."""
    return min(MAX_TICK_SECONDS, max(TICK_SECONDS, cpu_seconds / MAX_CPU_SHARE))
