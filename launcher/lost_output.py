"""Output that nobody takes: it stops no command, and only where it matters is it a failure."""

import contextlib
import errno
import select
import sys
from collections.abc import Iterator

from shared.errors import FarmError
from shared.standard_streams import STDOUT, find_output_error, keep_writable


@contextlib.contextmanager
def keep_working() -> Iterator[None]:
    """Runs a command to its end even if nobody reads its output; its exit code is that of its work.

    A reader that leaves has had enough: `| head -1` is no error. Output that can't be written for another reason, such
    as a full disk, is one, reported at the end.
    """
    keep_writable()
    try:
        yield
    except SystemExit as end:
        sys.exit(end.code or report_lost_output())


def report_lost_output() -> int:
    """Returns the exit code of a command that has succeeded apart from its output."""
    error = find_output_error()
    if error is None or error.errno == errno.EPIPE:
        return 0
    print(f"farm: {describe(error)}", file=sys.stderr)
    return 1


def require_output() -> None:
    """Raises FarmError unless all of standard output could be written: for tokens and secrets, the work itself."""
    if error := find_output_error():
        raise FarmError(describe(error))


def has_reader() -> bool:
    """Whether it is of use to go on writing to standard output. A pipe's reader is missed before the next write."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    has_left = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return not has_left and find_output_error() is None


def describe(error: OSError) -> str:
    return f"standard output can't be written: {error.strerror}"
