"""What is changed in an answer on its way."""

import pytest

from workers.response.rewriter import ResponseRewriter

CHUNK = (
    b'data: {"id":"1","model":"up","choices":[{"delta":{"content":"say \\"usage\\" and \\"model\\":\\"up\\""}}]}\n\n'
)
USAGE = b'data: {"id":"1","model":"up","choices": [ ],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def through(rewriting: ResponseRewriter, data: bytes, size: int) -> bytes:
    parts = [rewriting.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join(parts) + rewriting.flush()


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_the_usage_that_nobody_asked_for_is_hidden_whatever_the_pieces(size: int):
    hides = ResponseRewriter(is_stream=True, hides_usage=True)
    assert through(hides, CHUNK + USAGE + DONE, size) == CHUNK + DONE


def test_other_line_ends_and_comments_are_left_alone():
    stream = CHUNK.replace(b"\n", b"\r\n") + USAGE.replace(b"\n", b"\r\n") + b": ping\r\n\r\n" + DONE
    expected = CHUNK.replace(b"\n", b"\r\n") + b": ping\r\n\r\n" + DONE
    assert through(ResponseRewriter(is_stream=True, hides_usage=True), stream, 10_000) == expected


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[],"usage":null}\n\n',
        b'data: {"choices":[],"prompt_filter_results":[{"usage":1}]}\n\n',
        b'data: {"choices":[],"usage":{}\n\n',
    ],
)
def test_what_is_not_a_usage_alone_passes(event: bytes):
    assert through(ResponseRewriter(is_stream=True, hides_usage=True), event, 9) == event


@pytest.mark.parametrize("size", [1, 13, 10_000])
@pytest.mark.parametrize("is_stream", [True, False])
def test_a_mapped_model_is_named_as_the_caller_did(size: int, is_stream: bool):
    changed = ResponseRewriter(is_stream=is_stream, hides_usage=False, model=("up", "mine \u00e9"))
    expected = CHUNK.replace(b'"model":"up"', '"model":"mine \u00e9"'.encode())
    assert through(changed, CHUNK, size) == expected


def test_an_answer_that_needs_no_change_is_told():
    assert not ResponseRewriter(is_stream=False, hides_usage=True).is_needed
    assert ResponseRewriter(is_stream=True, hides_usage=True).is_needed
