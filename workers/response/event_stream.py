"""One stream of server-sent events on its way through: its end, its usage, and what is rewritten. No I/O."""

import time

from shared.parsing import parse_json_object
from shared.protocol.sse import DONE, EventBuffer, parse_events
from shared.response.rewriter import ModelRenamer, hide_usage
from shared.response.stream_completion import StreamCompletion
from shared.response.usage import may_report_usage
from workers.response.token_meter import TokenMeter

#: Seconds within which HTTP should end a stream after its terminal event, so that the connection can be kept.
OVER_SECONDS = 0.25
#: Seconds of silence after which a stream that has said all, but not its terminal event, has ended.
FINISHED_SECONDS = 2.0
#: How often an incomplete event is examined, because the upstream may never complete it.
MAX_REST_EXAMINATIONS = 8
NEVER = float("inf")


class EventStream:
    """Follows one stream, event by event."""

    def __init__(
        self,
        completion: StreamCompletion,
        meter: TokenMeter,
        *,
        hides_usage: bool = False,
        renamer: ModelRenamer | None = None,
    ) -> None:
        self._buffer = EventBuffer()
        self._completion = completion
        self._meter = meter
        self._hides_usage = hides_usage
        self._renamer = renamer
        self._rest_examinations = 0
        #: When the stream has ended even if the upstream goes on, by the monotonic clock; NEVER while more must come.
        self.ends_at = NEVER

    @property
    def has_error(self) -> bool:
        """Whether the stream ends with an error of the upstream."""
        return self._completion.has_error

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body and returns the bytes that may pass now."""
        events = self._buffer.feed(data)
        if events:
            self._rest_examinations = 0
            events = self._inspect(events)
        if self._buffer.rest_size and data.endswith((b"\n", b"\r", b"]")):
            self._examine_rest()
        return events

    def flush(self, *, cut: bool = False) -> bytes:
        """Returns the rest at the end of the stream; an event that lacks only its empty line gets it.

        `cut`: the body has broken off, so that an incomplete event is left out.
        """
        is_within_event, rest = self._buffer.is_within_event, self._buffer.flush()
        if not rest:
            return b""
        *_, last = parse_events(rest)
        is_object = bool(parse_json_object(last.data or b""))
        if cut and not is_object and not (last.data or b"").strip().startswith(DONE):
            return b""
        passed = self._inspect(rest)
        if not is_object or is_within_event or not passed:
            return passed
        return passed + (b"\n" if passed.endswith((b"\n", b"\r")) else b"\n\n")

    def is_complete(self, *, cut: bool = False) -> bool:
        """Whether the stream is whole if it ends now. `cut`: HTTP says that it is not, or it has just stopped."""
        for event in parse_events(self._buffer.rest()):
            self._completion.observe(event, is_incomplete=True)
        return self._completion.is_complete(cut=cut)

    def _inspect(self, events: bytes) -> bytes:
        """Shows events to those who watch the stream; returns what passes of them."""
        self._meter.feed(events)
        may_report = may_report_usage(events)
        if may_report or self._completion.concerns(events):
            events = self._inspect_each(events, may_report=may_report)
        return self._renamer.rename(events) if self._renamer else events

    def _inspect_each(self, events: bytes, *, may_report: bool) -> bytes:
        passed, has_data = [], False
        for event in parse_events(events):
            has_data = has_data or event.data is not None
            self._completion.observe(event)
            if may_report and event.data is not None:
                self._meter.read_usage(event.data)
                passed.append(hide_usage(event) if self._hides_usage else event.raw)
            else:
                passed.append(event.raw)
        self._set_end(has_data=has_data)
        return b"".join(passed)

    def _examine_rest(self) -> None:
        """Looks into an incomplete event: it may be the last one, with its empty line missing."""
        self._rest_examinations += 1
        if self._rest_examinations > MAX_REST_EXAMINATIONS:
            return
        rest = self._buffer.rest()
        if rest.endswith((b"\n", b"\r", DONE)) and self._completion.concerns(rest):
            for event in parse_events(rest):
                self._completion.observe(event, is_incomplete=True)
            self._set_end(has_data=True)

    def _set_end(self, *, has_data: bool) -> None:
        completion = self._completion
        if completion.is_over:
            self.ends_at = min(self.ends_at, time.monotonic() + OVER_SECONDS)
        elif not completion.is_finished:
            self.ends_at = NEVER
        elif has_data:
            self.ends_at = time.monotonic() + FINISHED_SECONDS
