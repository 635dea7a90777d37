"""The body of an upload is read in pieces, and others get their turns meanwhile."""

import gevent
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from web.files.upload import iter_body
from web.request.body_memory import BodyMemory, Reservation


class ReadyStream:
    """A body that has arrived already, so that reading it never waits."""

    def __init__(self, pieces: int) -> None:
        self._pieces = [b"x"] * pieces

    def read(self, _: int) -> bytes:
        return self._pieces.pop() if self._pieces else b""


def test_fast_sender_does_not_keep_the_event_loop_to_itself():
    environ = EnvironBuilder(method="POST").get_environ() | {"wsgi.input": ReadyStream(20)}
    others = [gevent.spawn(lambda: None) for _ in range(3)]
    pieces = iter_body(Request(environ), Reservation(BodyMemory(10**8), "k"))  # type: ignore[arg-type]
    next(pieces)
    next(pieces)
    assert all(other.ready() for other in others)
    assert len(list(pieces)) == 18
