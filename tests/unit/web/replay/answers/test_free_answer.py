"""An answer that cost nothing reports zeros for what it cost, and is the same in everything else."""

import pytest

from shared.protocol.messages import Frame, FrameKind, Head
from web.replay.answers.free_answer import build_free_answer

END = Frame(FrameKind.END, 9)


def free(content_type: str, *parts: bytes) -> bytes:
    head = Head(200, {"content-type": content_type}, attempts=3, queue_wait_ms=2000, first_byte_ms=100)
    data = [Frame(FrameKind.DATA, 1, part) for part in parts]
    frames = build_free_answer([Frame(FrameKind.HEAD, 0, head.encode()), *data, END])
    assert Head.decode(frames[0].payload) == Head(200, head.headers, 0, 0, 0)
    assert frames[-1] == END
    return b"".join(frame.payload for frame in frames[1:-1])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'data: {"usage":\ndata: {"prompt_tokens": 5}}\n\n', b'data: {"usage":\ndata: {"prompt_tokens": 0}}\n\n'),
        (
            b'data: {"usage":  null}\n\n' * 9 + b'data: {"eval_count":5}\n\n',
            b'data: {"usage":  null}\n\n' * 9 + b'data: {"eval_count":0}\n\n',
        ),
        (b'data: x\n\ndata: {"usage":{"total_tokens":5}}', b'data: x\n\ndata: {"usage":{"total_tokens":0}}'),
    ],
)
def test_stream_is_read_event_by_event(stream: bytes, expected: bytes):
    assert free("text/event-stream; charset=utf-8", stream[:9], stream[9:]) == expected


def test_object_is_read_from_its_first_usage_on():
    vectors = b'{"data": [%s], "note": "\xff", "usageMetadata": {"promptTokenCount": 7}}'
    numbers = b"0.25, " * 20_000 + b"1"
    zeroed = vectors.replace(b"7", b"0") % numbers
    assert free("application/json", vectors % numbers) == zeroed


def test_other_content_passes_as_it_is():
    assert free("audio/mpeg", b'"usage":{"prompt_tokens":5}') == b'"usage":{"prompt_tokens":5}'
