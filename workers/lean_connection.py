"""urllib3's connections with two things left out that each request would pay for; it knows no upstream.

A request's head and body are one send instead of two, and whether a kept connection still lives is asked of the
system and not of gevent's poll, which registers with the event loop for it. In front of that send, when a new
connection and its TLS stand, is the last moment in which a request can be called off unseen.
"""

from collections.abc import Callable
from select import POLLIN
from typing import Any

from gevent import monkey
from urllib3.connection import HTTPConnection, HTTPSConnection

#: Bytes of a body above which copying them costs more than a send.
LARGE = 65_536
poll = monkey.get_original("select", "poll")


class Lean(HTTPConnection):
    """What both kinds have in common."""

    #: What waits to be sent in one go; None while there is nothing to wait for.
    _held: list[bytes] | None = None

    def __init__(self, *args: Any, before_send: Callable[[], None], **kwargs: Any) -> None:
        """`before_send` is called before each request leaves; what it raises is raised, and nothing leaves."""
        super().__init__(*args, **kwargs)
        self._before_send = before_send

    def request(self, *args: Any, **kwargs: Any) -> None:
        """urllib3: sends head and body."""
        self._held = []
        try:
            super().request(*args, **kwargs)
        finally:
            held, self._held = self._held, None
        if self.sock is None:
            self.connect()
        self._before_send()
        small = sum(map(len, held[1:])) <= LARGE
        for data in [b"".join(held)] if small else held:
            self.send(data)

    def send(self, data: Any) -> None:
        """http.client: sends bytes, on a connection that it opens when there is none."""
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    @property
    def is_connected(self) -> bool:
        """urllib3: whether the other end has neither closed the connection nor sent what nobody asked for."""
        if self.sock is None:
            return False
        ready = poll()
        ready.register(self.sock.fileno(), POLLIN)
        return not ready.poll(0)


class LeanHTTPS(Lean, HTTPSConnection):
    """The same over TLS."""
