"""Responses are rewritten on their way: usage is hidden and mapped models are renamed back."""

import pytest

from workers.response.rewriter import ResponseRewriter

CHUNK = (
    b'data: {"id":"1","model":"up","choices":[{"delta":{"content":"say \\"usage\\" and \\"model\\":\\"up\\""}}]}\n\n'
)
USAGE = b'data: {"id":"1","model":"up","choices": [ ],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def rewrite(rewriter: ResponseRewriter, data: bytes, size: int) -> bytes:
    parts = [rewriter.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join(parts) + rewriter.flush()


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_usage_is_hidden_however_the_stream_is_split(size: int):
    rewriter = ResponseRewriter(is_stream=True, hides_usage=True)
    assert rewrite(rewriter, CHUNK + USAGE + DONE, size) == CHUNK + DONE


def test_crlf_and_comments_are_left_unchanged():
    stream = CHUNK.replace(b"\n", b"\r\n") + USAGE.replace(b"\n", b"\r\n") + b": ping\r\n\r\n" + DONE
    expected = CHUNK.replace(b"\n", b"\r\n") + b": ping\r\n\r\n" + DONE
    assert rewrite(ResponseRewriter(is_stream=True, hides_usage=True), stream, 10_000) == expected


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[],"usage":null}\n\n',
        b'data: {"choices":[],"prompt_filter_results":[{"usage":1}]}\n\n',
        b'data: {"choices":[],"usage":{}\n\n',
    ],
)
def test_events_that_hold_more_than_usage_pass(event: bytes):
    assert rewrite(ResponseRewriter(is_stream=True, hides_usage=True), event, 9) == event


@pytest.mark.parametrize("size", [1, 13, 10_000])
@pytest.mark.parametrize("is_stream", [True, False])
def test_mapped_model_is_renamed_to_the_callers_name(size: int, is_stream: bool):
    rewriter = ResponseRewriter(is_stream=is_stream, hides_usage=False, model=("up", "mine \u00e9"))
    expected = CHUNK.replace(b'"model":"up"', '"model":"mine \u00e9"'.encode())
    assert rewrite(rewriter, CHUNK, size) == expected


def test_rewriter_is_needed_only_for_changes():
    assert not ResponseRewriter(is_stream=False, hides_usage=True).is_needed
    assert ResponseRewriter(is_stream=True, hides_usage=True).is_needed
