"""Lines of output and error files."""

import json

import pytest

from web.batches.line_run import find_pause
from web.batches.lines.results import LineReply, read_usage, render_reply, render_skipped

CUSTOM_ID = 'a "b" \ud800 中'


def test_a_reply_stands_on_one_line_as_the_upstream_sent_it():
    body = b'{\r\n  "id": "x", "n": 1.50, "text": "a\\nb"\n}'
    line = render_reply(CUSTOM_ID, LineReply(200, "req_1", body))
    found = json.loads(line[1:])
    assert line[:1] == b"o" and line.count(b"\n") == 1 and b"1.50" in line
    assert found["custom_id"] == CUSTOM_ID and found["error"] is None and found["id"].startswith("batch_req_")
    assert found["response"] == {"status_code": 200, "request_id": "req_1", "body": json.loads(body)}


@pytest.mark.parametrize("padding", [0, 300_000], ids=["short", "long"])
@pytest.mark.parametrize("body", [b"<html>\n", b"", b"\xff", b'{"a": "\xff"}', b'{"a": 1}}', b'{"a":\n'])
def test_a_body_that_is_no_json_becomes_a_string(body: bytes, padding: int):
    found = json.loads(render_reply("a", LineReply(400, "req_1", body + b" " * padding))[1:])
    assert isinstance(found["response"]["body"], str)


def test_a_long_body_stands_on_one_line():
    body = json.dumps({"text": "x" * 300_000, "n": [1]}, indent=1).encode()
    line = render_reply("a", LineReply(200, "req_1", body))
    assert line.count(b"\n") == 1 and json.loads(line[1:])["response"]["body"] == json.loads(body)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("padding", [0, 300_000], ids=["short", "long"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "\xed\xa0\x80"}', {"a": "\ud800"}),
        (b'{"a": NaN, "b": [-Infinity, Infinity ], "c": 1}', {"a": None, "b": [None, None], "c": 1}),
        (b'{"a": "[NaN]", "b": 1e999, "c":[NaN]}', '{"a": "[NaN]", "b": 1e999, "c":[NaN]}'),
    ],
)
def test_json_that_only_some_parsers_read_spoils_no_file(body: bytes, expected: object, padding: int):
    line = render_reply("a", LineReply(200, "req_1", body + b" " * padding))
    found = json.loads(line[1:].decode(), parse_constant=refuse_constant)["response"]["body"]
    assert (found.rstrip(" ") if isinstance(found, str) else found) == expected


@pytest.mark.parametrize("value", ["ü", "u"])
def test_json_in_another_encoding_is_read(value: str):
    body = json.dumps({"a": value}, ensure_ascii=False).encode("utf-16-le")
    found = json.loads(render_reply("a", LineReply(200, "req_1", body))[1:].decode())
    assert found["response"]["body"] == {"a": value}


def test_a_failed_line_belongs_to_the_error_file():
    assert render_reply("a", LineReply(404, "req_1", b"{}"))[:1] == b"e"
    skipped = render_skipped(CUSTOM_ID, "batch_expired", "too late")
    assert skipped[:1] == b"e" and json.loads(skipped[1:])["error"]["code"] == "batch_expired"
    assert json.loads(skipped[1:])["response"] is None


CHAT_USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
RESPONSES_USAGE = {
    "input_tokens": 5,
    "output_tokens": 7,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens_details": {"reasoning_tokens": 3},
}
FIELDS = {"input_tokens": 5, "cached_tokens": 2, "output_tokens": 7, "reasoning_tokens": 3}


@pytest.mark.parametrize("padding", [0, 300_000], ids=["short", "long"])
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (CHAT_USAGE, FIELDS),
        (RESPONSES_USAGE, FIELDS),
        ({"prompt_tokens": 4, "total_tokens": 4}, {"input_tokens": 4}),
        ({"prompt_tokens": "4", "completion_tokens": -1}, {}),
        (None, {}),
    ],
)
def test_usage_is_read_in_the_form_of_each_endpoint(usage: object, expected: dict[str, int], padding: int):
    assert read_usage(json.dumps({"text": "x" * padding, "usage": usage}).encode()) == expected


def test_pauses_grow_to_a_bound_and_heed_the_upstream():
    assert 0.75 <= find_pause(1, 0) <= 1 and 3 <= find_pause(3, 0) <= 4 and 22 <= find_pause(50, 0) <= 30
    assert 9 <= find_pause(1, 12) <= 12 and find_pause(1, 4000) <= 30
