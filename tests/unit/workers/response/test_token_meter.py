"""The tokens of an answer, as the upstream reports them."""

import json

import pytest

from workers.response import tokenizer
from workers.response.token_meter import TokenMeter, Usage


def meter(*parts: bytes, is_stream: bool = False) -> TokenMeter:
    made = TokenMeter(is_stream=is_stream)
    for part in parts:
        made.feed(part)
    return made


def test_a_whole_answer_says_it():
    body = json.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})
    assert meter(body.encode()).usage(b"") == Usage(7, 5)


def test_a_stream_says_it_in_its_last_chunk_even_in_pieces():
    stream = b'data: {"choices": [{"delta": {"content": "x"}}], "usage": null}\n\n' * 300
    stream += b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 300}}\n\ndata: [DONE]\n\n'
    pieces = [stream[i : i + 17] for i in range(0, len(stream), 17)]
    assert meter(*pieces).usage(b"") == Usage(9, 300)


def test_the_responses_api_and_embeddings_have_their_own_names():
    assert meter(b'{"usage": {"input_tokens": 3, "output_tokens": 4}}').usage(b"") == Usage(3, 4)
    assert meter(b'{"usage": {"prompt_tokens": 8, "total_tokens": 8}}').usage(b"") == Usage(8, 0)


def test_what_stands_before_a_long_answer_is_found_too():
    assert meter(b'{"usage": {"prompt_tokens": 8}, "data": "' + b"x" * 100_000 + b'"}').usage(b"") == Usage(8, 0)


def test_a_text_that_speaks_of_usage_is_no_usage():
    text = json.dumps({"content": '"usage": {"prompt_tokens": 1000000}'}).encode()
    assert meter(text).usage(b"").estimated


QUESTION = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello world"}]}).encode()


@pytest.mark.parametrize(
    "usage", ['"usage": null', '"usage": {"prompt_tokens": "many"}', '"usage": {"prompt_tokens": -4}', '"usage": {"pro']
)
def test_where_nothing_is_reported_tokens_are_counted(usage: str):
    answer = '{"choices": [{"message": {"content": "Hello, brave new world"}}], ' + usage
    answer += "}" if usage.endswith(("null", "}")) else ""
    found = meter(answer.encode()).usage(QUESTION)
    assert (found.prompt, found.estimated) == (2, True)
    assert found.completion == (5 if answer.endswith("}") else 0)


def test_a_cut_stream_is_counted_as_far_as_it_came():
    chunk = 'data: {"choices": [{"delta": {"content": " word"}}]}\n\n'
    found = meter(*[chunk.encode()] * 7, chunk[:-9].encode(), is_stream=True).usage(QUESTION)
    assert found == Usage(2, 7, estimated=True)


def test_a_long_stream_is_counted_as_it_goes_by():
    chunk = b'data: {"choices": [{"delta": {"content": " word"}}]}\n\n'
    made = TokenMeter(is_stream=True)
    for _ in range(5000):
        made.feed(chunk)
        assert sum(map(len, made._uncounted)) <= 65_536 + len(chunk)
    assert made.usage(b"") == Usage(0, 5000, estimated=True)


@pytest.mark.parametrize(
    ("question", "tokens"),
    [
        ({"prompt": "Hello world"}, 2),
        ({"prompt": ["Hello world", "Hello"]}, 4),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello world"}]}]}, 2),
        ({"messages": [{"content": [{"image_url": {"url": "data:image/png;base64,AAAA"}}]}]}, 0),
        ({"model": "Hello world"}, 0),
    ],
)
def test_only_texts_of_a_question_count(question: object, tokens: int):
    assert meter(b"{}").usage(json.dumps(question).encode()).prompt == tokens


def test_vectors_and_files_are_no_tokens():
    answer = json.dumps({"data": [{"embedding": [0.1] * 1000}]}).encode()
    assert meter(answer).usage(b"no json").total == 0


def test_a_usage_that_is_nested_without_end_is_none():
    nested = b'data: {"usage": {"a":' + b"[" * 1500 + b"]" * 1500 + b"}}\n\n"
    assert meter(nested, is_stream=True).usage(b"").estimated


def test_a_text_without_a_space_is_counted_in_good_time():
    assert tokenizer.count_tokens("a" * 1_000_000) > 10_000
