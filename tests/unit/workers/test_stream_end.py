import pytest

from workers.stream_end import TAIL, StreamTail

CHAT = "/chat/completions"


@pytest.mark.parametrize(
    ("path", "parts", "whole"),
    [
        (CHAT, [b"data: {}\n\n", b"data: [DONE]\n\n"], True),
        (CHAT, [b"data: {}\n\n", b"data: [DO", b"NE]\n\n"], True),
        (CHAT, [b'data: {"choices":[{"finish_reason": "stop"}]}\n\n'], True),
        (CHAT, [b'data: {"choices":[{"finish_reason":null}]}\n\n'], False),
        (CHAT, [], False),
        ("/completions?a=b", [b"data: {}\n\n"], False),
        ("/responses", [b"event: response.completed\n"], True),
        (CHAT, [b"data: [DONE]", b"x" * TAIL], False),
        (CHAT, [b"x" * (2 * TAIL) + b"data: [DONE]"], True),
    ],
)
def test_a_stream_without_its_end_is_not_whole(path: str, parts: list[bytes], whole: bool):
    tail = StreamTail(path)
    for part in parts:
        tail.add(part)
    assert tail.is_whole() is whole
