"""Streams pass event by event, whatever their packets, and their end is known although HTTP does not mark it."""

import time

import pytest

from shared.response.rewriter import ModelRenamer
from shared.response.stream_completion import StreamCompletion
from shared.response.usage import Usage
from tests.raw_upstream import DONE, chat_chunk, chat_stream, event
from workers.response.event_stream import FINISHED_SECONDS, NEVER, OVER_SECONDS, EventStream
from workers.response.token_meter import TokenMeter

CHAT = "/chat/completions"
COUNTS = {"prompt_tokens": 7, "completion_tokens": 2}
USAGE = chat_chunk(choices=[], usage=COUNTS)


class Watched:
    """A stream with its meter."""

    def __init__(self, path: str = CHAT, *, hides_usage: bool = True, renamer: ModelRenamer | None = None) -> None:
        self.meter = TokenMeter(is_stream=True)
        self.stream = EventStream(StreamCompletion(path), self.meter, hides_usage=hides_usage, renamer=renamer)

    def feed(self, data: bytes, size: int = 100_000) -> bytes:
        return b"".join(self.stream.feed(data[at : at + size]) for at in range(0, len(data), size))

    @property
    def usage(self) -> Usage:
        return self.meter.usage(b"")


def with_line_ends(stream: bytes, line_end: bytes) -> bytes:
    return stream.replace(b"\n", line_end)


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_usage_is_counted_and_hidden_however_the_stream_is_cut(size: int, line_end: bytes):
    *texts, done = chat_stream("a", "b")
    watched = Watched()
    stream = with_line_ends(b"".join([*texts, USAGE, b": ping\n\n", done]), line_end)
    passed = watched.feed(stream, size) + watched.stream.flush()
    visible = with_line_ends(b"".join([*texts, b": ping\n\n", done]), line_end)
    # The last LF of a hidden event may come in a packet of its own: it ends nothing then.
    assert passed.replace(b"\n\n:", b"\n:") == visible.replace(b"\n\n:", b"\n:")
    assert watched.usage == Usage(7, 2)
    assert watched.stream.is_complete(cut=True)


@pytest.mark.parametrize("size", [1, 13, 10_000])
def test_stream_with_single_line_ends_is_watched_too(size: int):
    *texts, done = [block.replace(b"\n\n", b"\n") for block in chat_stream("a", "b")]
    watched = Watched()
    passed = watched.feed(b"".join([*texts, USAGE.replace(b"\n\n", b"\n"), done]), size)
    assert passed + watched.stream.flush() == b"".join([*texts, done])
    assert watched.usage == Usage(7, 2)
    assert watched.stream.ends_at < NEVER


def test_usage_is_not_hidden_from_who_asked():
    watched = Watched(hides_usage=False)
    assert watched.feed(USAGE) == USAGE
    assert watched.usage == Usage(7, 2)


@pytest.mark.parametrize(
    "last", [DONE, b"data: [DONE]\n", b"data: [DONE]", b"data:[DONE]\r\n", event({"a": 1}) + b"data: [DONE]\r"]
)
def test_stream_ends_at_its_terminal_event_even_without_the_empty_line(last: bytes):
    watched = Watched()
    watched.feed(chat_chunk("a"))
    assert watched.stream.ends_at == NEVER
    watched.feed(last)
    assert watched.stream.ends_at <= time.monotonic() + OVER_SECONDS


def test_end_is_not_put_off_by_what_follows_the_terminal_event():
    watched = Watched()
    watched.feed(DONE)
    ends_at = watched.stream.ends_at
    watched.feed(b": ping\n\n" + event({"a": 1}))
    assert watched.stream.ends_at == ends_at


def test_comments_do_not_put_off_the_end_of_a_finished_stream_but_events_do():
    watched, started_at = Watched(), time.monotonic()
    watched.feed(chat_chunk(finish_reason="stop"))
    ends_at = watched.stream.ends_at
    assert started_at + FINISHED_SECONDS <= ends_at <= time.monotonic() + FINISHED_SECONDS
    watched.feed(b": ping\n\n")
    assert watched.stream.ends_at == ends_at
    watched.feed(USAGE)
    assert watched.stream.ends_at > ends_at
    watched.feed(chat_chunk("more"))
    assert watched.stream.ends_at == NEVER


@pytest.mark.parametrize(
    "last", [b'data: {"choices":[{"finish_reason":"stop"}]}\n', b'data: {"choices":[{"finish_reason":']
)
def test_incomplete_last_event_counts_only_if_its_data_is_whole(last: bytes):
    watched = Watched()
    watched.feed(chat_chunk("a") + last)
    assert (watched.stream.ends_at < NEVER) is last.endswith(b"\n")
    assert watched.stream.is_complete(cut=True) is last.endswith(b"\n")


@pytest.mark.parametrize(
    ("rest", "passed"),
    [
        (b'event: response.completed\ndata: {"a":1}', b'event: response.completed\ndata: {"a":1}\n\n'),
        (b'event: response.completed\ndata: {"a":1}\n', b'event: response.completed\ndata: {"a":1}\n\n'),
        (b"data: [DONE]", b"data: [DONE]"),
    ],
)
def test_last_event_gets_the_empty_line_that_it_lacks(rest: bytes, passed: bytes):
    watched = Watched("/responses")
    watched.feed(rest)
    assert watched.stream.is_complete(cut=True)
    assert watched.stream.flush(cut=True) == passed


def test_incomplete_event_passes_only_if_the_stream_was_not_cut():
    for cut, passed in ((True, b""), (False, b'data: {"cho')):
        watched = Watched()
        watched.feed(b'data: {"cho')
        assert watched.stream.flush(cut=cut) == passed


def test_model_is_renamed_in_events_however_they_are_cut():
    chunk = chat_chunk("a", model="up")
    watched = Watched(renamer=ModelRenamer("up", "mine"))
    assert watched.feed(chunk, 5) == chunk.replace(b'"up"', b'"mine"')


@pytest.mark.parametrize("packet", [b"x", b"data: {\n", b"[DONE]", b'data: {"usage":1}\n', b"data: {}\n\n", b"]"])
def test_time_is_linear_in_the_length_of_a_stream(packet: bytes):
    def measure(count: int) -> float:
        watched = Watched()
        watched.feed(b"data: ")
        started_at = time.process_time()
        for _ in range(count):
            watched.feed(packet)
        return time.process_time() - started_at

    # A quadratic one takes a hundred times as long.
    assert measure(5000) < 40 * measure(500) + 0.5
