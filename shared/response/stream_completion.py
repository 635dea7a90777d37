"""Tells when a stream of server-sent events is over, and whether it is whole. No I/O.

A stream is over at its terminal event, whatever the upstream does with the connection: `[DONE]` (OpenAI API reference,
"Streaming"), or the last event of its endpoint. Chat and text completions without `[DONE]` are finished when each
choice has a `finish_reason`; only a usage may follow. What ends before that has been cut off.
"""

import re
from typing import Any

from shared.parsing import parse_json_object
from shared.protocol.sse import DONE, Event
from shared.response.endpoints import COMPLETION_PATHS, RESPONSES_PATH, has_content

#: Last events by endpoint (OpenAI API reference, "Streaming events").
TERMINAL_EVENTS = {
    RESPONSES_PATH: ("response.completed", "response.failed", "response.incomplete", "response.cancelled", "error"),
    "/audio/speech": ("speech.audio.done", "error"),
    "/audio/transcriptions": ("transcript.text.done", "error"),
    "/audio/translations": ("transcript.text.done", "error"),
    "/images/generations": ("image_generation.completed", "error"),
    "/images/edits": ("image_edit.completed", "error"),
}
#: Of these there is one for each image.
IMAGE_EVENTS = ("image_generation.completed", "image_edit.completed")
FINISH_REASON = re.compile(rb'"finish_reason"\s*:\s*"')
#: A `finish_reason` of a choice that goes on, as some upstreams write it.
NO_REASONS = ("", "null", "none")
#: What a request for several choices has: a number of them, or several prompts.
NUMBER_OF_CHOICES = b'"n"'
SEVERAL_PROMPTS = re.compile(rb'"prompt"\s*:\s*\[')


class StreamCompletion:
    """Watches the events of one stream."""

    def __init__(self, path: str, request_body: bytes = b"", *, delimited: bool = True) -> None:
        """`delimited`: whether HTTP marks the end of the body, so that a closed connection can't be taken for it."""
        endpoint = path.partition("?")[0]
        self._is_completion = endpoint in COMPLETION_PATHS
        self._is_undelimited_response = endpoint == RESPONSES_PATH and not delimited
        self._terminal_events = TERMINAL_EVENTS.get(endpoint, ())
        self._marks = (DONE, b"error", *(name.encode() for name in self._terminal_events))
        self._expected = count_choices(request_body)
        self._seen: set[object] = set()
        self._finished: set[object] = set()
        self._images = 0
        #: Whether no event may be passed over: one choice of several may begin, or what had finished go on.
        self._observes_all = self._expected > 1
        #: Whether the terminal event has come.
        self.is_over = False
        #: Whether the upstream has reported an error, after which nothing of value comes.
        self.has_error = False

    @property
    def is_finished(self) -> bool:
        """Whether all has come but perhaps a usage and the terminal event."""
        return self.is_over or self.has_error or len(self._finished) >= self._expected

    def concerns(self, events: bytes) -> bool:
        """Whether these events have to be observed; quick, because nearly all of a stream's need not."""
        for mark in self._marks:
            if mark in events:
                return True
        if self._is_completion and FINISH_REASON.search(events):
            return True
        return self._observes_all

    def observe(self, event: Event, *, is_incomplete: bool = False) -> None:
        """Takes in an event. `is_incomplete`: it lacks its empty line, and comes again if the upstream sends that."""
        data = (event.data or b"").strip(b' \t"')
        if data.startswith(DONE):
            self.is_over = self._observes_all = True
            return
        payload = parse_json_object(data)
        if is_incomplete and not payload:
            return
        types = {event.type.decode(errors="replace"), str(payload.get("type"))}
        if not types.isdisjoint(self._terminal_events):
            self._observe_terminal_event(is_image=not types.isdisjoint(IMAGE_EVENTS), is_incomplete=is_incomplete)
        self._observe_choices(payload.get("choices"))
        if "error" in types or (payload.get("error") and not payload.get("choices")):
            self.has_error = True
        self._observes_all = self._observes_all or self.is_finished

    def _observe_terminal_event(self, *, is_image: bool, is_incomplete: bool) -> None:
        images = self._images + 1
        self.is_over |= not is_image or images >= self._expected
        self._images = self._images if is_incomplete else images

    def _observe_choices(self, choices: Any) -> None:
        if not self._is_completion or not isinstance(choices, list):
            return
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            index = index if type(index) is int else position
            self._seen.add(index)
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason.lower() not in NO_REASONS:
                self._finished.add(index)
            elif has_content(choice):
                self._finished.discard(index)

    def is_complete(self, *, cut: bool = False) -> bool:
        """Whether a stream that ends now is whole. `cut`: HTTP says that its body is not, or it has just stopped."""
        if self.is_finished:
            return True
        if cut:
            return False
        if self._is_completion:
            # Some upstreams have fewer choices than they were asked for.
            return bool(self._finished) and self._finished >= self._seen
        return not self._is_undelimited_response


def count_choices(request_body: bytes) -> int:
    """How many choices a request asks for: `n` for each of its prompts."""
    if NUMBER_OF_CHOICES not in request_body and not SEVERAL_PROMPTS.search(request_body):
        return 1
    fields = parse_json_object(request_body)
    number, prompts = fields.get("n"), fields.get("prompt")
    number = number if type(number) is int and number > 0 else 1
    # A list of numbers is one prompt, of tokens.
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        return number * len(prompts)
    return number
