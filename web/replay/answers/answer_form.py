"""Turns a shared answer into the form that a caller asked for: streamed or whole, with or without its usage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shared.decoding import UnreadableRecord
from shared.parsing import parse_json_object
from shared.protocol.messages import Failure, Frame, FrameKind, Head
from shared.protocol.sse import EventBuffer, parse_events
from shared.response.conversion.folding import StreamFolder
from shared.response.conversion.unfolding import unfold
from shared.response.endpoints import COMPLETION_PATHS, RESPONSES_PATH, InvalidResponse, has_choices
from shared.response.rewriter import hide_usage
from shared.response.usage import may_report_usage
from web.replay.answers.free_answer import build_free_answer
from web.request.cooperative import run_in_slices
from web.request.rendering import EVENT_STREAM, JSON

#: Endpoints whose streams can be made whole, and the reverse.
CONVERTED_PATHS = (*COMPLETION_PATHS, RESPONSES_PATH)
#: Bytes that are converted at a time.
STEP_BYTES = 65_536
NOT_CONVERTIBLE = Failure(502, "upstream_error", "the answer has no such form; ask for it as before", "upstream_error")


@dataclass(frozen=True)
class AnswerForm:
    """What a caller asked for."""

    #: That of the request, below /v1, without its query.
    path: str
    is_stream: bool
    has_usage: bool
    #: Whether it reports a usage of zero: it was there already, and made for another request.
    is_free: bool = False
    #: Whether it passes streamed or whole as it comes: it is that to the caller's own request.
    is_own: bool = False


class Converter(Protocol):
    """Converts the body of one answer."""

    #: Whether nothing passes before the end, so that the head may wait too.
    is_whole: bool
    content_type: str

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body and returns what may pass now. Raises InvalidResponse."""

    def finish(self) -> bytes:
        """Returns the rest. Raises InvalidResponse."""


class FoldedStream:
    """A stream for a caller who asked for none."""

    is_whole, content_type = True, JSON

    def __init__(self, form: AnswerForm) -> None:
        self._folder = StreamFolder(form.path)

    def feed(self, data: bytes) -> bytes:
        self._folder.feed(data)
        return b""

    def finish(self) -> bytes:
        return self._folder.finish()


class UnfoldedObject:
    """An object for a caller who asked for a stream."""

    is_whole, content_type = True, EVENT_STREAM

    def __init__(self, form: AnswerForm) -> None:
        self._form = form
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self._parts.append(data)
        return b""

    def finish(self) -> bytes:
        payload = parse_json_object(b"".join(self._parts))
        if not payload or (self._form.path in COMPLETION_PATHS and not has_choices(payload)):
            raise InvalidResponse("JSON that has no form of a stream")
        return unfold(self._form.path, payload, wants_usage=self._form.has_usage)


class StreamWithoutUsage:
    """A stream for a caller who did not ask for its usage."""

    is_whole, content_type = False, ""

    def __init__(self, _: AnswerForm) -> None:
        self._events = EventBuffer()

    def feed(self, data: bytes) -> bytes:
        return self._hide(self._events.feed(data))

    def finish(self) -> bytes:
        return self._hide(self._events.flush())

    def _hide(self, events: bytes) -> bytes:
        return b"".join(map(hide_usage, parse_events(events))) if may_report_usage(events) else events


class FormedFrames:
    """The frames of an answer in the form that one caller asked for."""

    def __init__(self, form: AnswerForm) -> None:
        self._form = form
        self._head: Frame | None = None
        self._converter: Converter | None = None
        #: Why the caller gets no answer, if it can't be converted.
        self.failure: Failure | None = None

    def convert(self, frames: Sequence[Frame]) -> list[Frame]:
        """Takes the next frames, of a free answer all at once, and returns those that may pass now."""
        if self._form.is_free:
            frames = build_free_answer(frames)
        if frames and frames[0].kind is FrameKind.HEAD:
            self._converter = self._choose_converter(frames[0])
        if self._converter is None:
            return list(frames)
        try:
            return list(self._convert(self._converter, frames))
        except InvalidResponse:
            self.failure = NOT_CONVERTIBLE
            return [Frame(FrameKind.FAILURE, 0, self.failure.encode())]

    def _choose_converter(self, frame: Frame) -> Converter | None:
        form = self._form
        try:
            head = Head.decode(frame.payload)
        except UnreadableRecord:
            return None
        content_type = head.headers.get("content-type", "").lower()
        is_stream = content_type.startswith(EVENT_STREAM)
        if not 200 <= head.status < 300 or form.path not in CONVERTED_PATHS:
            return None
        converter: Converter | None = None
        if is_stream and not (form.is_stream or form.is_own):
            converter = FoldedStream(form)
        elif form.is_stream and not form.is_own and content_type.startswith(JSON):
            converter = UnfoldedObject(form)
        elif is_stream and not form.has_usage and form.path in COMPLETION_PATHS:
            converter = StreamWithoutUsage(form)
        if converter and converter.content_type:
            head = replace(head, headers={**head.headers, "content-type": converter.content_type})
        self._head = Frame(FrameKind.HEAD, 0, head.encode())
        return converter

    def _convert(self, converter: Converter, frames: Sequence[Frame]) -> Iterator[Frame]:
        if self._head and not converter.is_whole:
            yield from self._take_head()
        if body := self._feed(converter, frames):
            yield Frame(FrameKind.DATA, 1, body)
        last = frames[-1]
        if last.kind is FrameKind.END:
            rest = converter.finish()
            yield from self._take_head()
            yield from ([Frame(FrameKind.DATA, 2, rest)] if rest else [])
            yield last
        elif last.kind is FrameKind.FAILURE:
            yield last

    def _take_head(self) -> list[Frame]:
        head, self._head = self._head, None
        return [head] if head else []

    def _feed(self, converter: Converter, frames: Sequence[Frame]) -> bytes:
        """Other requests get their turn while a long answer is converted."""
        data = b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)
        if len(data) <= STEP_BYTES:
            return converter.feed(data)
        passed: list[bytes] = []

        def feed() -> Iterator[None]:
            for start in range(0, len(data), STEP_BYTES):
                passed.append(converter.feed(data[start : start + STEP_BYTES]))
                yield

        run_in_slices(feed())
        return b"".join(passed)
