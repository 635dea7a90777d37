"""Standard output and standard error whose reader may leave, or whose disk may be full."""

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: File descriptors (stdio(3)).
STDOUT, STDERR = 1, 2


class Output(io.FileIO):
    """Drops what it can't write: a broken pipe is no reason to stop in the middle of the work, nor is a log."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        #: What the first write that failed met with.
        self.error: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


def keep_writable() -> None:
    """Makes this process, and those that it forks, drop what can't be written to its standard streams."""
    for name, fd in (("stdout", STDOUT), ("stderr", STDERR)):
        stream = getattr(sys, name)
        # Python has None for one that was closed at the start.
        if isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, replace_stream(stream, fd))


def replace_stream(stream: io.TextIOWrapper, fd: int) -> io.TextIOWrapper:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Output(fd)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def find_output_error() -> OSError | None:
    """Why standard output could not be written, if that was so."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, Output) else None
