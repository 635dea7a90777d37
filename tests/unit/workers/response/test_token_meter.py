"""Usage is read from the response, or estimated by counting tokens."""

import json

import pytest

from shared.response.usage import Usage
from tests import internals
from workers.response import tokenizer
from workers.response.token_meter import TokenMeter


def build_meter(*parts: bytes, is_stream: bool = False) -> TokenMeter:
    meter = TokenMeter(is_stream=is_stream)
    for part in parts:
        meter.feed(part)
    return meter


def test_usage_is_read_from_a_json_response():
    body = json.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})
    assert build_meter(body.encode()).usage(b"") == Usage(7, 5)


@pytest.mark.parametrize("size", [10_000, 5_000_000])
def test_usage_of_a_long_response_is_found_at_either_end(size: int):
    usage, data = '"usage": {"prompt_tokens": 8}', f'"data": "{"x" * size}"'
    for body in (f"{{{usage}, {data}}}", f"{{{data}, {usage}}}"):
        assert build_meter(body.encode()).usage(b"") == Usage(8, 0)


def test_usage_amid_a_response_is_found():
    text = "x" * 10_000
    body = json.dumps({"a": text, "usage": {"prompt_tokens": 8}, "b": text})
    assert build_meter(body.encode()).usage(b"") == Usage(8, 0)


def test_text_that_mentions_usage_is_not_usage():
    text = json.dumps({"content": '"usage": {"prompt_tokens": 1000000}'}).encode()
    assert build_meter(text).usage(b"").estimated


REQUEST_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello world"}]}).encode()


@pytest.mark.parametrize(
    "usage", ['"usage": null', '"usage": {"prompt_tokens": "many"}', '"usage": {"prompt_tokens": -4}', '"usage": {"pro']
)
def test_unreported_usage_is_estimated(usage: str):
    response = '{"choices": [{"message": {"content": "Hello, brave new world"}}], ' + usage
    response += "}" if usage.endswith(("null", "}")) else ""
    usage = build_meter(response.encode()).usage(REQUEST_BODY)
    assert (usage.prompt, usage.estimated) == (2, True)
    assert usage.completion == (5 if response.endswith("}") else 0)


def test_truncated_stream_is_counted_as_far_as_it_arrived():
    chunk = 'data: {"choices": [{"delta": {"content": " word"}}]}\n\n'
    usage = build_meter(*[chunk.encode()] * 7, chunk[:-9].encode(), is_stream=True).usage(REQUEST_BODY)
    assert usage == Usage(2, 7, estimated=True)


def test_long_stream_is_counted_as_it_arrives():
    chunk = b'data: {"choices": [{"delta": {"content": " word"}}]}\n\n'
    meter = TokenMeter(is_stream=True)
    for _ in range(5000):
        meter.feed(chunk)
        assert internals.uncounted_bytes(meter) <= 65_536 + len(chunk)
    assert meter.usage(b"") == Usage(0, 5000, estimated=True)


@pytest.mark.parametrize(
    ("request_body", "tokens"),
    [
        ({"prompt": "Hello world"}, 2),
        ({"prompt": ["Hello world", "Hello"]}, 4),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello world"}]}]}, 2),
        ({"messages": [{"content": [{"image_url": {"url": "data:image/png;base64,AAAA"}}]}]}, 0),
        ({"model": "Hello world"}, 0),
    ],
)
def test_only_texts_of_a_request_are_counted(request_body: object, tokens: int):
    assert build_meter(b"{}").usage(json.dumps(request_body).encode()).prompt == tokens


def test_embeddings_and_files_are_not_counted():
    response = json.dumps({"data": [{"embedding": [0.1] * 1000}]}).encode()
    assert build_meter(response).usage(b"no json").total == 0


def test_deeply_nested_usage_is_ignored():
    nested = b'data: {"usage": {"a":' + b"[" * 1500 + b"]" * 1500 + b"}}\n\n"
    assert build_meter(nested, is_stream=True).usage(b"").estimated


def test_text_without_spaces_is_counted_quickly():
    assert tokenizer.count_tokens("a" * 1_000_000) > 10_000
