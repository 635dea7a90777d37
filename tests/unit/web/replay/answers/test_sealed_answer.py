"""A sealed answer is opened only as a whole, and with its key."""

import random

import pytest

from shared.protocol.messages import Frame, FrameKind, Head
from web.replay.answers.sealed_answer import OVERHEAD_BYTES, PIECE_BYTES, seal, unseal

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def build(size: int) -> list[Frame]:
    body = random.Random(size).randbytes(size)
    parts = [body[start : start + 1000] for start in range(0, size, 1000)]
    head = Frame(FrameKind.HEAD, 0, Head(200, {"content-type": "audio/mpeg"}).encode())
    return [
        head,
        *(Frame(FrameKind.DATA, number, part) for number, part in enumerate(parts, 1)),
        Frame(FrameKind.END, 9),
    ]


def read_body(frames: list[Frame]) -> bytes:
    return b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)


@pytest.mark.parametrize("size", [0, 1, 500, 1_000_000])
def test_answer_comes_out_as_it_went_in(size: int):
    frames = build(size)
    pieces = seal(frames, KEY)
    assert all(len(piece) <= PIECE_BYTES + OVERHEAD_BYTES for piece in pieces)
    opened = unseal(pieces, KEY)
    assert (opened[0].payload, read_body(opened), opened[-1].kind) == (
        frames[0].payload,
        read_body(frames),
        FrameKind.END,
    )


def test_stream_of_events_is_stored_in_a_tenth():
    event = (
        b'data: {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [{"delta": {"content": "%d"}}]}\n\n'
    )
    frames = [build(0)[0], *(Frame(FrameKind.DATA, n, event % n) for n in range(1000)), Frame(FrameKind.END, 9)]
    assert sum(map(len, seal(frames, KEY))) < len(read_body(frames)) / 10


def test_nothing_but_the_whole_answer_is_opened():
    first, second = (seal(build(size), KEY) for size in (600_000, 600_001))
    assert len(first) > 2
    for pieces in (first[:-1], first[1:], first[::-1], [second[0], *first[1:]][:-1], [first[0][:-1], *first[1:]]):
        with pytest.raises(ValueError, match="unsealed"):
            unseal(pieces, KEY)
    with pytest.raises(ValueError, match="unsealed"):
        unseal(first, OTHER_KEY)


def test_same_answer_is_sealed_differently_each_time():
    assert seal(build(10), KEY) != seal(build(10), KEY)
