import pytest

from workers.response.stream_completion import TAIL_BYTES, StreamCompletion

CHAT = "/chat/completions"


@pytest.mark.parametrize(("delimited", "whole"), [(True, True), (False, False)])
def test_a_stream_of_the_responses_api_must_say_that_it_ended_where_http_can_not(delimited: bool, whole: bool):
    tail = StreamCompletion("/responses", delimited=delimited)
    tail.feed(b"event: response.output_text.delta\ndata: {}\n\n")
    assert tail.is_complete() is whole
    tail.feed(b"event: response.compl")
    tail.feed(b"eted\ndata: " + b"x" * 2 * TAIL_BYTES + b"\n\n")
    assert tail.is_complete()


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
        (CHAT, [b"data: [DONE]", b"x" * TAIL_BYTES], False),
        (CHAT, [b"x" * (2 * TAIL_BYTES) + b"data: [DONE]"], True),
    ],
)
def test_a_stream_without_its_end_is_not_whole(path: str, parts: list[bytes], whole: bool):
    tail = StreamCompletion(path)
    for part in parts:
        tail.feed(part)
    assert tail.is_complete() is whole
