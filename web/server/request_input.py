"""Bounds a request body before anything parses it: its size by route, and the time in which it must arrive."""

import time
from typing import Any

import gevent
from flask import Request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge

from shared.errors import ApiError
from shared.settings.schema import Settings

#: Bytes of a body: of a form or any other route that relays nothing, and of a call to the admin API.
MAX_FORM_BYTES, MAX_ADMIN_BYTES = 4096, 262_144
#: The one call to the admin API that takes as much as a relayed request, and the endpoints that relay.
IMPORT_PATH, RELAY_ENDPOINT = "/admin/api/v1/credentials", "relay.relay"
#: The endpoint that takes files, seconds that an upload may take, and bytes of the input of a batch (OpenAI: 200 MB).
UPLOAD_ENDPOINT, MAX_UPLOAD_SECONDS, MAX_BATCH_INPUT_BYTES = "files.create_file", 6 * 3600.0, 200 * 1024 * 1024
#: The endpoint that takes the description of a batch, with its metadata, and bytes of that.
BATCH_ENDPOINT, MAX_BATCH_BYTES = "batches.create_batch", 65_536
#: The console, whose lists send what was selected, and its page that imports.
CONSOLE, CONSOLE_IMPORT = "console", "console.submit_import"
ADMIN_API_PREFIX = "/admin/api/"
#: Bytes that must arrive within the idle timeout.
PIECE_BYTES = 65_536


def find_body_limit(request: Request, max_body: int, max_file: int) -> int:
    """Returns how many bytes the body may have."""
    if request.endpoint == UPLOAD_ENDPOINT:
        return min(max_file, MAX_BATCH_INPUT_BYTES) + MAX_FORM_BYTES
    if request.endpoint == BATCH_ENDPOINT:
        return MAX_BATCH_BYTES
    if request.endpoint in (RELAY_ENDPOINT, CONSOLE_IMPORT) or request.path == IMPORT_PATH:
        return max_body
    takes_more = request.path.startswith(ADMIN_API_PREFIX) or request.blueprint == CONSOLE
    return min(max_body, MAX_ADMIN_BYTES if takes_more else MAX_FORM_BYTES)


def limit_body(request: Request, settings: Settings) -> None:
    """Limits size and duration of the body, whoever reads it. Raises RequestEntityTooLarge (413), ApiError 415.

    A relayed request and an upload are refused for their size later, after their API key has been checked.
    """
    length = request.content_length
    if length == 0 or (length is None and "HTTP_TRANSFER_ENCODING" not in request.environ):
        return
    endpoint, limit = request.endpoint, find_body_limit(request, settings.max_body, settings.max_file)
    is_relayed, is_upload = endpoint == RELAY_ENDPOINT, endpoint == UPLOAD_ENDPOINT
    if not is_relayed and request.blueprint == CONSOLE:
        request.max_form_memory_size = limit
    # Werkzeug cuts a chunked body at its limit without an error, so TimedInput meets the limit first.
    request.max_content_length = limit if length is not None else limit + 1
    if length is not None and length > limit and not (is_relayed or is_upload or endpoint is None):
        raise RequestEntityTooLarge
    if not is_relayed and request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(
            415, "unsupported_media_type", "no compressed body is taken here", headers={"accept-encoding": "identity"}
        )
    environ = request.environ
    total_seconds = MAX_UPLOAD_SECONDS if is_upload else settings.total_timeout
    environ["wsgi.input"] = TimedInput(environ["wsgi.input"], limit, settings.body_timeout, total_seconds)


class TimedInput:
    """`wsgi.input` with a limit, an idle timeout for each PIECE_BYTES and a total one."""

    def __init__(self, raw: Any, limit: int, idle_seconds: float, total_seconds: float) -> None:
        self._raw = raw
        self._limit = limit
        self._received = 0
        self._idle_seconds = idle_seconds
        self._ends_at = time.monotonic() + total_seconds

    def read(self, size: int = -1) -> bytes:
        """Raises ApiError 408 for a body that arrives too slowly, 400 for bad chunks, RequestEntityTooLarge (413)."""
        pieces = [self._read_piece(size)]
        received = len(pieces[0])
        while pieces[-1] and received != size:
            # A fast sender must not keep the event loop to itself.
            gevent.sleep(0)
            pieces.append(self._read_piece(size - received if size >= 0 else -1))
            received += len(pieces[-1])
        return b"".join(pieces)

    def _read_piece(self, size: int) -> bytes:
        seconds = max(0.0, min(self._idle_seconds, self._ends_at - time.monotonic()))
        timeout = gevent.Timeout(seconds)
        try:
            with timeout:
                data: bytes = self._raw.read(min(size, PIECE_BYTES) if size >= 0 else PIECE_BYTES)
        except gevent.Timeout as error:
            if error is not timeout:
                raise
            # Where the next request starts is unknown now: gunicorn closes the connection.
            self._raw.failed = True
            raise ApiError(408, "request_timeout", "the request body did not arrive in time") from None
        except ParseException:
            raise ApiError(400, "invalid_body", "the body's chunked encoding is invalid") from None
        self._received += len(data)
        if self._received > self._limit:
            raise RequestEntityTooLarge
        return data
