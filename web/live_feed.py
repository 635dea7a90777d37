"""Feeds pages that show what goes on now: one snapshot a second for all of a front's viewers, and none without them."""

import logging
from collections.abc import Callable, Collection, Hashable
from typing import Any, Generic, TypeVar

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

log = logging.getLogger("farm.web")
Topic = TypeVar("Topic", bound=Hashable)
#: Seconds between two snapshots.
TICK_SECONDS = 1.0
#: Viewers of one front; further ones get a single message each time they ask.
MAX_VIEWERS = 20


def render_nothing(topics: Collection[Any]) -> dict[Any, bytes]:
    return {}


class Viewer(Generic[Topic]):
    """One who watches a topic. Holds the newest message only: a slow reader skips what it has missed."""

    def __init__(self, topic: Topic, every: int, on_end: "Callable[[Viewer[Topic]], None]") -> None:
        self.topic = topic
        #: Ticks from one message to the next.
        self.every = every
        #: Whether it has had no message yet: it need not wait for its turn.
        self.is_new = True
        self.has_ended = False
        self._message = b""
        self._woken = Event()
        self._on_end = on_end

    def offer(self, message: bytes) -> None:
        self.is_new = False
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
        """Adds a viewer, who gets the next snapshot, and from then on one every so many seconds."""
        viewer = Viewer(topic, every, self._viewers.discard)
        if self._is_closed:
            viewer.end()
            return viewer
        self._viewers.add(viewer)
        if not self._is_running:
            self._is_running = True
            gevent.spawn(self._run)
        return viewer

    def close(self) -> None:
        """Ends all viewers, present and future: the front retires."""
        self._is_closed = True
        for viewer in list(self._viewers):
            viewer.end()

    def _run(self) -> None:
        tick = 0
        try:
            while self._viewers:
                gevent.sleep(TICK_SECONDS)
                tick += 1
                self._serve([viewer for viewer in self._viewers if viewer.is_new or tick % viewer.every == 0])
        finally:
            self._is_running = False

    def _serve(self, due: list[Viewer[Topic]]) -> None:
        try:
            messages = self.render({viewer.topic for viewer in due}) if due else {}
        except RedisError as error:
            log.warning("can't take a snapshot for the console: %s", error, extra={"action": "redis_lost"})
            return
        except Exception:
            log.exception("can't render a snapshot for the console", extra={"action": "chore_failed"})
            return
        for viewer in due:
            if message := messages.get(viewer.topic):
                viewer.offer(message)
