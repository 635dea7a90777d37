"""A stream reaches the caller in whole events, or line by line where the upstream sends it so."""

from collections.abc import Iterator
from typing import Any

from shared.errors import ApiError
from shared.protocol.sse import parse_events
from web.request.rendering import iter_events

CUT = ApiError(502, "upstream_eof", "broke off")
LINES = [b'data: {"choices": [{"index": %d}]}\n' % number for number in range(3)]


class Replies:
    """Stands for a pending request whose frames have this body; b'' is a silence, an error its end."""

    def __init__(self, *body: bytes | ApiError) -> None:
        self._body = body

    def iter_body(self, frames: list[Any], timeout: float) -> Iterator[bytes]:
        for data in self._body:
            if isinstance(data, ApiError):
                raise data
            yield data


def render(*body: bytes | ApiError) -> list[bytes]:
    return list(iter_events(Replies(*body), [], 1.0))  # type: ignore[arg-type]


def test_lines_without_empty_ones_pass_as_they_come():
    assert render(*LINES, b"data: [DONE]\n") == [b"".join(LINES[:2]), LINES[2], b"data: [DONE]\n", b""]


def test_silence_between_such_lines_ends_no_event():
    assert render(*LINES, b"")[2] == b": keep-alive\n"
    assert render(*LINES, b"\n", b"")[3] == b": keep-alive\n\n"


def test_error_after_such_lines_is_an_event_of_its_own():
    *_, error = parse_events(b"".join(render(*LINES, CUT)))
    assert error.data == CUT.body()


def test_incomplete_event_is_not_passed_before_an_error():
    assert render(b"data: 1\n\ndata: {", CUT) == [b"data: 1\n\n", b"data: " + CUT.body() + b"\n\n"]
