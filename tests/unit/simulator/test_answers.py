import json

from simulator import answers
from simulator.faults import Faults

REQUEST = {"model": "m", "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Hello"}]}


def test_the_translation_undoes_itself():
    assert answers.translate(answers.translate("Hello, Wörld")) == "Hello, Wörld"


def test_a_streamed_answer_is_the_same_as_a_whole_one():
    events = b"".join(answers.chat_events(REQUEST, 1, 7)).split(b"\n\n")
    deltas = [json.loads(event[6:]) for event in events if event.startswith(b"data: {")]
    text = "".join(one["choices"][0]["delta"].get("content", "") for one in deltas)
    assert text == answers.chat(REQUEST, 1)["choices"][0]["message"]["content"] == "Uryyb"
    assert events[-2] == b"data: [DONE]"


def test_usage_is_streamed_only_when_asked_for():
    asked = {**REQUEST, "stream_options": {"include_usage": True}}
    assert b'"usage"' in b"".join(answers.chat_events(asked, 1, 1))
    assert b'"usage"' not in b"".join(answers.chat_events(REQUEST, 1, 1))


def test_faults_come_again_from_the_same_seed():
    draws = [[Faults(seed=4, rate_limit=0.3, cut=0.3).draw() for _ in range(1)] for _ in range(2)]
    one, two = Faults(seed=4, rate_limit=0.3, cut=0.3), Faults(seed=4, rate_limit=0.3, cut=0.3)
    assert [one.draw() for _ in range(50)] == [two.draw() for _ in range(50)]
    assert draws[0] == draws[1]
    assert {Faults(seed=i, rate_limit=0.3, cut=0.3).draw() for i in range(50)} == {"", "rate_limit", "cut"}
