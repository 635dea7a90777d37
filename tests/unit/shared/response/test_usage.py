"""Usage is found in the forms and places that upstreams have."""

import json

import pytest

from shared.json_object import cut_members
from shared.response.usage import ReportedUsage, Usage, find_members


def read(*parts: object) -> Usage | None:
    reported = ReportedUsage()
    for part in parts:
        reported.read(part if isinstance(part, str) else json.dumps(part))
    return reported.usage()


@pytest.mark.parametrize(
    "response",
    [
        {"usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}},
        {"usage": {"prompt_tokens": "12", "completion_tokens": 3.0}},
        {"usage": {"prompt_tokens": "12.0", "completion_tokens": " 3 "}},
        {"usage": {"input_tokens": 12, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 7}}},
        {"usage": {"prompt_tokens": 12, "total_tokens": 15}},
        {"usage": {"completion_tokens": 3, "total_tokens": 15}},
        {"usage": {"prompt_tokens": 12, "completion_tokens": None, "total_tokens": 15}},
        {"usage": {"promptTokens": 12, "completionTokens": 3}},
        {"usage": None, "x_groq": {"id": "r", "usage": {"prompt_tokens": 12, "completion_tokens": 3}}},
        {"choices": [{"index": 0, "usage": {"prompt_tokens": 12, "completion_tokens": 3}}]},
        {"type": "response.completed", "response": {"usage": {"input_tokens": 12, "output_tokens": 3}}},
        {"usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 3, "totalTokenCount": 15}},
        {"usage_metadata": {"prompt_token_count": 12, "candidates_token_count": 3}},
        {"done": True, "prompt_eval_count": 12, "eval_count": 3},
        {"token_usage": {"prompt_tokens": 12, "completion_tokens": 3}},
    ],
)
def test_usage_is_found_in_every_form(response: object):
    assert read(response) == Usage(12, 3)
    assert read(json.dumps(response, indent=1)) == Usage(12, 3)


def test_later_usage_counts_as_far_as_it_goes():
    first, second = {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}, {"usage": {"completion_tokens": 5}}
    assert read(first, second) == Usage(9, 5)
    assert read(first, {"usage": None}, {"usage": {}}) == Usage(9, 1)
    assert read(first, {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}) == Usage(9, 1)


@pytest.mark.parametrize(
    "count", ["many", -4, True, [], float("nan"), float("inf"), 10**400, "", "1" * 400, "nan", 10**10, None, {}]
)
def test_invalid_count_is_none(count: object):
    assert read({"usage": {"prompt_tokens": count, "completion_tokens": count}}) is None


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"content": '"usage": {"prompt_tokens": 1000000}'}),
        json.dumps({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}),
        json.dumps({"usage": 7}),
        '{"usage": {"pro',
        '{"usage": {"a":' + "[" * 100_000,
        '{"usage":' * 20_000,
    ],
)
def test_what_is_no_usage_is_not_counted(text: str):
    assert read(text) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ('{"usage":null}', "{}"),
        ('{ "a" : 1 , "usage" : { } , "b" : 2 }', '{ "a" : 1  , "b" : 2 }'),
        ('{"usage": {"x": [1]}, "b": 2}', '{"b": 2}'),
        ('{"usage":null,"eval_count":2}', "{}"),
        ('{"usage":null,"eval_count":2,"x":1}', '{"x":1}'),
        ('{"x":1,"usage":null,"eval_count":2}', '{"x":1}'),
        ('[{"usage":null},{"usage":null,"a":1}]', '[{},{"a":1}]'),
    ],
)
def test_members_are_cut_with_one_comma(text: str, rest: str):
    assert cut_members(text, [(member.start, member.end) for member in find_members(text)]) == rest
    json.loads(rest)
