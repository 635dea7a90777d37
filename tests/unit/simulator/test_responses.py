"""The simulator builds responses, and draws faults by a seed."""

import json

from simulator import responses
from simulator.faults import Faults

REQUEST = {"model": "m", "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Hello"}]}


def test_the_translation_is_its_own_inverse():
    assert responses.translate(responses.translate("Hello, Wörld")) == "Hello, Wörld"


def test_a_streamed_completion_has_the_text_of_the_plain_one():
    events = b"".join(responses.stream_chat_completion(REQUEST, 1, 7)).split(b"\n\n")
    chunks = [json.loads(event[6:]) for event in events if event.startswith(b"data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == responses.build_chat_completion(REQUEST, 1)["choices"][0]["message"]["content"] == "Uryyb"
    assert events[-2] == b"data: [DONE]"


def test_usage_is_streamed_only_on_request():
    with_usage = {**REQUEST, "stream_options": {"include_usage": True}}
    assert b'"usage"' in b"".join(responses.stream_chat_completion(with_usage, 1, 1))
    assert b'"usage"' not in b"".join(responses.stream_chat_completion(REQUEST, 1, 1))


def test_the_same_seed_draws_the_same_faults():
    first, second = Faults(seed=4, rate_limit=0.3, cut=0.3), Faults(seed=4, rate_limit=0.3, cut=0.3)
    assert [first.draw() for _ in range(50)] == [second.draw() for _ in range(50)]
    assert {Faults(seed=i, rate_limit=0.3, cut=0.3).draw() for i in range(50)} == {"", "rate_limit", "cut"}
