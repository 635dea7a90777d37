"""A stream is over at its terminal event, and whole only when all that was asked for has finished."""

import json

import pytest

from shared.protocol.sse import parse_events
from shared.response.stream_completion import StreamCompletion, count_choices
from tests.raw_upstream import DONE, chat_chunk, event

CHAT = "/chat/completions"
TWO_CHOICES = b'{"model": "m", "n": 2}'


def observe(path: str, *events: bytes, body: bytes = b"", delimited: bool = True) -> StreamCompletion:
    completion = StreamCompletion(path, body, delimited=delimited)
    for block in events:
        if completion.concerns(block):
            for parsed in parse_events(block):
                completion.observe(parsed)
    return completion


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (CHAT, DONE),
        (CHAT, b"data:[DONE]\r\r"),
        (CHAT, b"event: end\ndata: [DONE] \n\n"),
        ("/completions?a=b", DONE),
        ("/responses", event({"type": "response.completed", "response": {}})),
        ("/responses", event({"response": {}}, "response.failed")),
        ("/responses", event({"type": "response.incomplete"}, "response.incomplete")),
        ("/responses", b'data: {"type": "error", "message": "no"}\nevent: error\n\n'),
        ("/responses", DONE),
        ("/audio/speech", event({"type": "speech.audio.done"})),
        ("/audio/transcriptions", event({"type": "transcript.text.done", "text": "a"})),
        ("/images/generations", event({"type": "image_generation.completed"})),
        ("/images/edits", event({"type": "image_edit.completed"}, "image_edit.completed")),
    ],
)
def test_stream_is_over_at_its_terminal_event(path: str, last: bytes):
    completion = observe(path, chat_chunk("a"), last, delimited=False)
    assert completion.is_over
    assert completion.is_complete(cut=True)


@pytest.mark.parametrize(
    "text",
    [
        b'data: {"choices":[{"delta":{"content":"It ends with data: [DONE]"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ndata: [DONE]\\n"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"{\\"finish_reason\\": \\"stop\\"}"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"response.completed, event: error"}}]}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":null}],"error":null}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":""}]}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":"null"}]}\n\n',
        b": [DONE]\n\n",
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/completions"])
def test_text_about_ends_ends_nothing(path: str, text: bytes):
    completion = observe(path, text)
    assert not completion.is_finished
    assert not completion.is_complete()


def test_text_about_events_does_not_end_a_stream_of_the_responses_api():
    deltas = [event({"delta": text}, "response.output_text.delta") for text in ("response.completed", "event: error")]
    completion = observe("/responses", *deltas, delimited=False)
    assert not completion.is_over
    assert not completion.is_complete()


def test_stream_with_a_reason_for_its_choice_is_finished_but_not_over():
    completion = observe(CHAT, chat_chunk("a"), chat_chunk(finish_reason="stop"))
    assert completion.is_finished
    assert not completion.is_over
    assert completion.is_complete(cut=True)


def test_each_of_several_choices_must_finish():
    first, second = chat_chunk(finish_reason="stop"), chat_chunk(finish_reason="length", index=1)
    one = observe(CHAT, chat_chunk("a"), chat_chunk("b", index=1), first, body=TWO_CHOICES)
    assert not one.is_finished
    assert not one.is_complete()
    assert observe(CHAT, chat_chunk("a"), chat_chunk("b", index=1), first, second, body=TWO_CHOICES).is_finished
    assert observe(CHAT, first, chat_chunk("b"), first, body=TWO_CHOICES).is_finished is False


def test_upstream_that_has_fewer_choices_than_asked_for_must_end_its_stream():
    completion = observe(CHAT, chat_chunk("a"), chat_chunk(finish_reason="stop"), body=TWO_CHOICES)
    assert completion.is_complete()
    assert not completion.is_complete(cut=True)


def test_choice_that_goes_on_has_not_finished():
    completion = observe(CHAT, chat_chunk("a", finish_reason="stop"), chat_chunk("b"))
    assert not completion.is_finished


def test_each_of_several_images_must_be_there():
    image = event({"type": "image_generation.completed"})
    assert not observe("/images/generations", image, body=TWO_CHOICES).is_over
    assert observe("/images/generations", image, image, body=TWO_CHOICES).is_over


@pytest.mark.parametrize(
    "error",
    [event({"error": {"message": "no"}}), event({"message": "no"}, "error"), event({"type": "error", "message": "no"})],
)
def test_error_of_the_upstream_finishes_a_stream(error: bytes):
    completion = observe(CHAT, chat_chunk("a"), error)
    assert completion.has_error
    assert completion.is_finished
    assert not observe(CHAT, chat_chunk("a", finish_reason="stop"), DONE).has_error


@pytest.mark.parametrize(("path", "complete"), [(CHAT, False), ("/responses", True), ("/audio/speech", True)])
def test_http_ends_only_streams_that_need_no_terminal_event(path: str, complete: bool):
    assert observe(path, event({"delta": "a"})).is_complete() is complete
    assert not observe(path, event({"delta": "a"})).is_complete(cut=True)


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": None}, 1),
        ({"n": "2"}, 1),
        ({"n": -1}, 1),
        ({"prompt": "a", "n": 2}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
    ],
)
def test_choices_of_a_request_are_counted(fields: dict[str, object], choices: int):
    assert count_choices(json.dumps({"model": "m", **fields}).encode()) == choices
