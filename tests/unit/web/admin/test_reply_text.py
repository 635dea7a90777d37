"""The playground finds the text of a reply, whatever its form, and nothing in what is none."""

import json
from typing import Any

import pytest

from web.admin.playground.reply_text import read_events, read_reply


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ({"choices": [{"delta": {"content": "你"}}, {"delta": {"content": "好"}}]}, "你好"),
        ({"choices": [{"message": {"content": "Hello"}}]}, "Hello"),
        ({"choices": [{"text": "completion"}]}, "completion"),
        ({"choices": [{"delta": {"content": None, "tool_calls": []}}]}, ""),
        ({"choices": [{"delta": {"content": [1]}}, 7]}, ""),
        ({"choices": {}}, ""),
        ([], ""),
        ("text", ""),
    ],
)
def test_text_of_all_choices(reply: Any, text: str):
    assert read_reply(json.dumps(reply).encode()) == (text, "")


def test_what_is_no_json_has_no_text():
    assert read_reply(b"<html>") == read_reply(b"[" * 100_000) == ("", "")


def test_events_are_joined_and_their_error_is_found():
    events = (
        b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n: comment\n\ndata: {"error": {"message": "broken"}}\n\n'
    )
    assert read_events(events + b"data: [DONE]\n\n") == ("a", "broken")
