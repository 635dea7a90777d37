"""Turns the bytes of one 2xx response into those that the caller gets. No I/O.

1. The error sniffer finds out what the response is, and lets no error in disguise pass.
2. A stream is folded into one object, or one object unfolded into a stream, when the other form was asked for.
3. Usage that only the farm asked for is hidden, and a mapped model gets the caller's name.
"""

from shared.parsing import parse_json_object
from shared.protocol.messages import RelayRequest
from shared.response.conversion.folding import StreamFolder
from shared.response.conversion.unfolding import unfold
from shared.response.endpoints import COMPLETION_PATHS, RESPONSES_PATH, SPEECH_PATH, has_choices
from shared.response.events import iter_payloads
from shared.response.rewriter import ModelRenamer
from shared.response.stream_completion import StreamCompletion
from shared.response.usage import Usage
from workers.response.error_sniffer import EVENTS_TYPE, JSON_TYPE, ErrorSniffer, IncompleteResponse, Kind
from workers.response.event_stream import NEVER, EventStream
from workers.response.json_body import JsonBody
from workers.response.token_meter import TokenMeter

#: Types of audio and text that have none, or that of something else.
AUDIO_TYPE, TEXT_TYPE = "application/octet-stream", "text/plain; charset=utf-8"
WRONG_TYPES = ("text/html", "application/xhtml+xml", EVENTS_TYPE, JSON_TYPE)


class ResponseProcessor:
    """Processes one response."""

    def __init__(
        self,
        request: RelayRequest,
        request_body: bytes,
        content_type: str,
        *,
        delimited: bool,
        model: tuple[str, str] | None = None,
    ) -> None:
        """`delimited`: whether HTTP marks the end of the body. `model`: see ModelRenamer."""
        self._request = request
        self._request_body = request_body
        self._path = request.path.partition("?")[0]
        self._label = content_type
        self._delimited = delimited
        self._renamer = ModelRenamer(*model) if model else None
        self._sniffer = ErrorSniffer(self._path, content_type, wants_stream=request.stream, delimited=delimited)
        self._meter: TokenMeter | None = None
        #: What watches the body and rewrites it; None while its kind is not known, and for other kinds.
        self._events: EventStream | None = None
        self._json: JsonBody | None = None
        self._folder: StreamFolder | None = None
        #: The object that is to be unfolded; None when the response is not.
        self._object: list[bytes] | None = None
        #: Whether the caller asked for the other form.
        self._is_converted = False

    @property
    def content_type(self) -> str:
        """The type of what the caller gets; valid once there is something."""
        media_type = self._label.partition(";")[0].strip()
        if self._is_stream_sent:
            return self._label if media_type == EVENTS_TYPE else EVENTS_TYPE
        if self._sniffer.kind is not Kind.OTHER:
            return self._label if media_type == JSON_TYPE else JSON_TYPE
        if media_type and media_type.lower() not in WRONG_TYPES:
            return self._label
        return AUDIO_TYPE if self._path == SPEECH_PATH else TEXT_TYPE

    @property
    def _hides_usage(self) -> bool:
        return self._request.hides_usage and not self._request.reveals_usage

    @property
    def _is_stream_sent(self) -> bool:
        return self._object is not None or (
            self._sniffer.kind is Kind.EVENTS and (self._folder is None or self._request.stream)
        )

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body and returns the bytes that may pass now. Raises InvalidResponse."""
        if not self._sniffer.is_done:
            data = self._sniffer.feed(data)
            if not self._sniffer.is_done:
                return b""
            self._begin(data)
        return self._process(data)

    @property
    def ends_at(self) -> float:
        """When a stream ends although the upstream goes on, by the monotonic clock; NEVER while more must come."""
        return self._events.ends_at if self._events else NEVER

    @property
    def has_error(self) -> bool:
        """Whether the response ends with an error of the upstream, which has passed."""
        return self._events is not None and self._events.has_error

    def is_complete_stream(self) -> bool:
        """Whether the response is a stream that has said all, so that it is whole although it was cut."""
        return self._events is not None and self._events.is_complete(cut=True)

    def finish(self, *, cut: bool = False) -> bytes:
        """Returns the rest at the end of the body. Raises InvalidResponse, IncompleteResponse.

        `cut`: the body has broken off.
        """
        passed = b""
        if not self._sniffer.is_done:
            data = self._sniffer.flush()
            self._begin(data)
            passed = self._process(data)
        if self._events and not self._events.is_complete(cut=cut):
            raise IncompleteResponse("a stream without its last event")
        return passed + self._finish(cut=cut)

    def usage(self) -> Usage:
        """The tokens of what has passed so far."""
        return self._meter.usage(self._request_body) if self._meter else Usage()

    def _begin(self, data: bytes) -> None:
        """Sets up what the kind of response needs; `data` is its beginning."""
        kind, is_foldable = self._sniffer.kind, self._path in (*COMPLETION_PATHS, RESPONSES_PATH)
        if kind is Kind.OTHER:
            return
        self._meter = TokenMeter(is_stream=kind is Kind.EVENTS)
        if kind is Kind.JSON:
            self._json = JsonBody(self._meter, self._renamer)
            self._is_converted = is_foldable and self._request.stream
            self._object = [] if self._is_converted else None
            return
        self._is_converted = is_foldable and (not self._request.stream or has_whole_message(data))
        self._folder = StreamFolder(self._path) if self._is_converted else None
        self._events = EventStream(
            StreamCompletion(self._path, self._request_body, delimited=self._delimited),
            self._meter,
            hides_usage=self._hides_usage and self._folder is None,
            renamer=self._renamer,
        )

    def _process(self, data: bytes) -> bytes:
        if self._events:
            data = self._events.feed(data)
        elif self._json:
            data = self._json.feed(data)
        return self._convert(data) if self._is_converted else data

    def _finish(self, *, cut: bool) -> bytes:
        rest = self._events.flush(cut=cut) if self._events else self._json.flush() if self._json else b""
        if not self._is_converted:
            return rest
        self._convert(rest)
        whole = self._folder.finish() if self._folder else b"".join(self._object or ())
        return self._unfold(whole) if self._request.stream else whole

    def _convert(self, data: bytes) -> bytes:
        """Collects what is to be sent in another form, once it is complete."""
        if self._folder:
            self._folder.feed(data)
        elif self._object is not None:
            self._object.append(data)
        return b""

    def _unfold(self, body: bytes) -> bytes:
        payload = parse_json_object(body)
        if self._path in COMPLETION_PATHS and not has_choices(payload):
            return b"data: " + body.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n"
        return unfold(self._path, payload, wants_usage=not self._hides_usage and self._is_usage_wanted())

    def _is_usage_wanted(self) -> bool:
        options = parse_json_object(self._request_body).get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))


def has_whole_message(events: bytes) -> bool:
    """Whether a stream of completions has whole messages instead of deltas, which no SDK puts together."""
    if b'"message"' not in events:
        return False
    choices = (choice for _, payload in iter_payloads(events) if has_choices(payload) for choice in payload["choices"])
    first = next((choice for choice in choices if isinstance(choice, dict)), {})
    return isinstance(first.get("message"), dict) and not first.get("delta")
