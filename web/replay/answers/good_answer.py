"""Judges whether an answer is worth keeping: whole, and no error in disguise."""

from collections.abc import Iterator, Sequence
from typing import Any

from shared.parsing import parse_json
from shared.protocol.messages import Frame, FrameKind, Head
from shared.protocol.sse import EventBuffer
from shared.response.endpoints import (
    COMPLETION_PATHS,
    RESPONSES_PATH,
    describe_invalid,
    is_error_event,
    is_response_event,
)
from shared.response.events import iter_payloads
from web.request.cooperative import run_in_slices
from web.request.rendering import EVENT_STREAM, JSON

#: Bytes of JSON that are parsed at once.
MAX_PARSED_BYTES = 1024 * 1024
#: Bytes of a stream that are parsed at a time.
STEP_BYTES = 65_536
#: Reasons for an end that another try may not meet.
BAD_REASONS = ("", "null", "none", "error", "content_filter", "cancelled", "canceled", "abort")


def is_good_answer(path: str, frames: Sequence[Frame]) -> bool:
    """`frames` are those of a complete 2xx reply; `path` is that of the request, below /v1, without its query."""
    body = b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)
    content_type = Head.decode(frames[0].payload).headers.get("content-type", "").lower()
    if content_type.startswith(EVENT_STREAM):
        return is_good_stream(path, body)
    if content_type.startswith(JSON):
        return is_good_object(path, body)
    return bool(body)


def is_good_object(path: str, body: bytes) -> bool:
    if len(body) > MAX_PARSED_BYTES:
        # Workers have held it back until it was complete, and let no error pass.
        return path not in (*COMPLETION_PATHS, RESPONSES_PATH)
    payload = parse_json(body)
    if payload is None or describe_invalid(path, payload):
        return False
    if path in COMPLETION_PATHS:
        return bool(payload["choices"]) and all(map(has_ended_well, payload["choices"]))
    return path != RESPONSES_PATH or not isinstance(payload, dict) or payload.get("status", "completed") == "completed"


def is_good_stream(path: str, body: bytes) -> bool:
    judge = StreamJudge(path)
    run_in_slices(judge.read(body))
    return judge.is_good


class StreamJudge:
    """Looks at all events of one stream."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._has_error = False
        #: Index of a choice -> whether it has ended well.
        self._choices: dict[int, bool] = {}
        self._is_completed = False

    def read(self, body: bytes) -> Iterator[None]:
        """Reads a whole stream, a piece at each step."""
        events = EventBuffer()
        for start in range(0, len(body), STEP_BYTES):
            self._observe(events.feed(body[start : start + STEP_BYTES]))
            yield
        self._observe(events.flush())

    def _observe(self, data: bytes) -> None:
        for event, payload in iter_payloads(data):
            if not is_response_event(self._path, event, payload) and is_error_event(event, payload):
                self._has_error = True
            if isinstance(payload, dict):
                self._is_completed |= payload.get("type") == "response.completed"
                self._observe_choices(payload.get("choices"))

    def _observe_choices(self, choices: Any) -> None:
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            if isinstance(choice, dict):
                index = choice.get("index")
                index = index if type(index) is int else position
                self._choices[index] = has_ended_well(choice) or self._choices.get(index, False)

    @property
    def is_good(self) -> bool:
        if self._has_error:
            return False
        if self._path in COMPLETION_PATHS:
            return bool(self._choices) and all(self._choices.values())
        return self._path != RESPONSES_PATH or self._is_completed


def has_ended_well(choice: Any) -> bool:
    reason = choice.get("finish_reason") if isinstance(choice, dict) else None
    return isinstance(reason, str) and reason.lower() not in BAD_REASONS
