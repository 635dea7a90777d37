"""Responses are rewritten on their way: usage is hidden and mapped models are renamed back."""

import json

import pytest

from shared.protocol.sse import parse_events
from shared.response.rewriter import ModelRenamer, hide_usage, zero_event_usage, zero_usage
from tests.raw_upstream import chat_chunk

COUNTS = '{"prompt_tokens":1,"completion_tokens":2}'
CHUNK = (
    b'data: {"id":"1","model":"up","choices":[{"delta":{"content":"say \\"usage\\": null, \\"model\\":\\"up\\""}}]}\n\n'
)


def hide(event: bytes) -> bytes:
    (parsed,) = parse_events(event)
    return hide_usage(parsed)


@pytest.mark.parametrize(
    "members",
    [
        f'"choices": [ ],"usage":{COUNTS}',
        f'"choices":null,"usage":{COUNTS}',
        f'"usage":{COUNTS}',
        f'"choices":[],"usage":null,"x_groq":{{"id":"r","usage":{COUNTS}}}',
        '"choices":[],"usage":{"prompt_tokens":"1","completion_tokens":2.0}',
        '"choices":[],"usage":{"promptTokens":1}',
        '"prompt_eval_count":1,"eval_count":2',
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_event_with_nothing_but_usage_is_hidden(members: str, line_end: str):
    assert hide(f'event: message{line_end}data: {{"id":"1",{members}}}{line_end}{line_end}'.encode()) == b""


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (f'data: {{"choices":[{{"delta":{{}}}}],"usage":{COUNTS}}}\n\n', 'data: {"choices":[{"delta":{}}]}\n\n'),
        (f'data: {{"usage":{COUNTS},"choices":[{{"a":1}}]}}\r\n\r\n', 'data: {"choices":[{"a":1}]}\r\n\r\n'),
        ('id: 1\ndata:{"choices":[{"a":1}],"usage":null}\n\n', 'id: 1\ndata: {"choices":[{"a":1}]}\n\n'),
        (f'data: {{"choices":[{{"a":1,"usage":{COUNTS}}}]}}\n\n', 'data: {"choices":[{"a":1}]}\n\n'),
        ('data: {"choices":[{"a":1}],\ndata: "usage":null}\n\n', 'data: {"choices":[{"a":1}]}\n\n'),
        ('data: {"choices":[],"usage":null}\n\n', 'data: {"choices":[]}\n\n'),
        (f'data: {{"error":{{"a":1}},"usage":{COUNTS}}}\n\n', 'data: {"error":{"a":1}}\n\n'),
        ('\ufeffdata: {"a":1,"usage":null}\n\n', '\ufeffdata: {"a":1}\n\n'),
    ],
)
def test_usage_beside_other_members_is_taken_out(event: str, left: str):
    assert hide(event.encode()) == left.encode()


@pytest.mark.parametrize(
    "event",
    [
        CHUNK,
        chat_chunk("a"),
        b'data: {"choices":[],"prompt_filter_results":[{"usage":1}]}\n\n',
        b'data: {"choices":[],"usage":{"seconds":3}}\n\n',
        b'data: {"choices":[],"usage":{}\n\n',
        b": usage\n\n",
        b"data: [DONE]\n\n",
        b'data: {"a":"\xff usage"}\n\n',
    ],
)
def test_event_without_a_usage_passes_byte_for_byte(event: bytes):
    assert hide(event) == event


def test_bytes_that_are_no_text_survive_the_hiding():
    assert hide(b'data: {"choices":[{"a":"\xf0\x9f\x98\x80"}],"usage":null}\n\n').count(b"\xf0\x9f\x98\x80") == 1


def test_mapped_model_is_renamed_to_the_callers_name():
    renamer = ModelRenamer("up", "mine \u00e9")
    assert renamer.rename(CHUNK) == CHUNK.replace(b'"model":"up"', '"model":"mine \u00e9"'.encode())
    assert json.loads(renamer.rename(b'{"model": "up", "a": "\\"model\\":\\"up\\""}'))["a"] == '"model":"up"'


@pytest.mark.parametrize(
    ("usage", "zero"),
    [
        ('"prompt_tokens": 12, "completion_tokens":3.5e1', '"prompt_tokens": 0, "completion_tokens":0'),
        ('"prompt_tokens":1,"details":{"a":[2,-3],"b":null}', '"prompt_tokens":0,"details":{"a":[0,0],"b":null}'),
        ('"total_tokens":"12","tier":"v 2","at": "5s"', '"total_tokens":"0","tier":"v 2","at": "5s"'),
        ('"input_tokens":1,"4":true,"a\\"5":6', '"input_tokens":0,"4":true,"a\\"5":0'),
    ],
)
def test_each_number_of_a_usage_becomes_zero_and_nothing_else(usage: str, zero: str):
    text = '{"created":7,"note":"\\"usage\\":{\\"prompt_tokens\\":1}","response":{"usage":{%s}},"eval_count": 5,"n":8}'
    assert zero_usage(text % usage) == (text % zero).replace('"eval_count": 5', '"eval_count": 0')


def test_usage_without_counts_and_events_without_usage_stay():
    assert zero_usage('{"usage":{"a":1},"usage":7}') == '{"usage":{"a":1},"usage":7}'
    for raw in (b": comment\n\n", b"data: [DONE]\n\n", b'data:{"usage":null}\n\n', CHUNK):
        (event,) = parse_events(raw)
        assert zero_event_usage(event) == raw
    (event,) = parse_events(b'id: 1\ndata:{"usage":{"prompt_tokens":1}}\r\n\r\n')
    assert zero_event_usage(event) == b'id: 1\ndata: {"usage":{"prompt_tokens":0}}\r\n\r\n'
