"""Standard streams that can't be written stop nothing."""

import errno
import os
import sys
from collections.abc import Iterator

import pytest

from shared.standard_streams import Output, find_output_error, keep_writable, replace_stream
from tests.unread_pipe import open_unread_pipe


@pytest.fixture
def unread() -> Iterator[int]:
    with open_unread_pipe() as write_end:
        yield write_end


@pytest.fixture
def full() -> Iterator[int]:
    """A file on a full disk."""
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(("stream", "code"), [("unread", errno.EPIPE), ("full", errno.ENOSPC)])
def test_what_cannot_be_written_is_dropped_and_the_first_error_kept(
    stream: str, code: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "stdout", replace_stream(sys.__stdout__, request.getfixturevalue(stream)))
    assert find_output_error() is None
    for _ in range(3):
        print("x" * 10_000, flush=True)
    sys.stdout.buffer.write(b"y" * 100_000)
    error = find_output_error()
    assert error and error.errno == code


def test_what_can_be_written_is_and_another_try_is_made_after_an_error(unread: int):
    read_end, write_end = os.pipe()
    stream = replace_stream(sys.__stdout__, write_end)
    print("first ü", file=stream, flush=True)
    saved = os.dup(write_end)
    os.dup2(unread, write_end)
    print("lost", file=stream, flush=True)
    os.dup2(saved, write_end)
    os.close(saved)
    print("second", file=stream, flush=True)
    assert os.read(read_end, 100).decode() == "first ü\nsecond\n"
    assert isinstance(stream.buffer.raw, Output) and not stream.isatty()  # type: ignore[attr-defined]
    os.close(read_end)
    os.close(write_end)


def test_stream_that_was_closed_at_the_start_stays_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    keep_writable()
    assert sys.stdout is None
    assert isinstance(sys.stderr.buffer.raw, Output)
