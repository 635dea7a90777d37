"""A stream counts as complete only when its end says so."""

import pytest

from workers.response.stream_completion import TAIL_BYTES, StreamCompletion

CHAT = "/chat/completions"


@pytest.mark.parametrize(("delimited", "complete"), [(True, True), (False, False)])
def test_responses_api_stream_must_say_that_it_ended_unless_http_does(delimited: bool, complete: bool):
    stream = StreamCompletion("/responses", delimited=delimited)
    stream.feed(b"event: response.output_text.delta\ndata: {}\n\n")
    assert stream.is_complete() is complete
    stream.feed(b"event: response.compl")
    stream.feed(b"eted\ndata: " + b"x" * 2 * TAIL_BYTES + b"\n\n")
    assert stream.is_complete()


@pytest.mark.parametrize("text", [b"event: response.completed", b"\\nevent: error\\n"])
def test_text_about_events_does_not_end_a_stream_of_the_responses_api(text: bytes):
    stream = StreamCompletion("/responses", delimited=False)
    stream.feed(b'event: response.output_text.delta\ndata: {"delta":"' + text + b'"}\n\n')
    assert not stream.is_complete()


@pytest.mark.parametrize(
    ("path", "parts", "complete"),
    [
        (CHAT, [b"data: {}\n\n", b"data: [DONE]\n\n"], True),
        (CHAT, [b"data: {}\n\n", b"data: [DO", b"NE]\n\n"], True),
        (CHAT, [b'data: {"choices":[{"finish_reason": "stop"}]}\n\n'], True),
        (CHAT, [b'data: {"choices":[{"finish_reason":null}]}\n\n'], False),
        (CHAT, [], False),
        ("/completions?a=b", [b"data: {}\n\n"], False),
        ("/responses", [b"event: response.completed\n"], True),
        (CHAT, [b"data: [DONE]", b"x" * TAIL_BYTES], False),
        (CHAT, [b"x" * (2 * TAIL_BYTES) + b"\n\ndata: [DONE]"], True),
        (CHAT, [b"data: {}\r\rdata:[DONE]\r\r"], True),
        (CHAT, [b'data: {"choices":[{"delta":{"content":"It ends with data: [DONE]'], False),
        (CHAT, [b'data: {"choices":[{"delta":{"content":"\\ndata: [DONE]\\n"}}]}\n\n'], False),
        (CHAT, [b'data: {"choices":[{"delta":{"content":"{\\"finish_reason\\": \\"stop\\"}"}}]}\n\n'], False),
    ],
)
def test_stream_without_its_end_is_incomplete(path: str, parts: list[bytes], complete: bool):
    stream = StreamCompletion(path)
    for part in parts:
        stream.feed(part)
    assert stream.is_complete() is complete
