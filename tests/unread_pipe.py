"""A pipe whose reader has left, as after `| true`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gevent import monkey

#: gevent's, which the tests have, closes a file descriptor later that a connection had before.
close_now = monkey.get_original("os", "close")


@contextmanager
def open_unread_pipe() -> Iterator[int]:
    """Its writing end."""
    read_end, write_end = os.pipe()
    close_now(read_end)
    try:
        yield write_end
    finally:
        close_now(write_end)
