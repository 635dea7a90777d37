"""One attempt of one request on one credential: token, upstream call, frames (I6, I7); it knows no RQ and no Redis."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from urllib3 import BaseHTTPResponse

from shared.observability.counters import Counters
from shared.settings.schema import PoolSettings, Settings
from workers.attempt.cancel_scope import Cancelled, CancelScope
from workers.attempt.delivery import Delivery
from workers.attempt.outcomes import Done, Failed, Outcome, Stopped, is_retryable, token_failure
from workers.attempt.upstream_errors import build_failure, empty_response, error_response, error_status
from workers.credentials.access_token import TOKEN_FAILURES, AccessToken
from workers.response.error_sniffer import ErrorSniffer, NotAnAnswer
from workers.response.rewriter import ResponseRewriter
from workers.response.stream_completion import StreamCompletion
from workers.response.token_meter import TokenMeter, Usage
from workers.upstream.client import (
    ResponseTruncated,
    UpstreamConnection,
    UpstreamUnreachable,
    is_event_stream,
    is_json,
    iter_body,
    read_error_body,
    read_whole_json,
    select_headers,
)
from workers.upstream.http_response import is_delimited

log = logging.getLogger("farm.relay")
NEVER = float("inf")
TIMEOUTS = {
    "first_byte_timeout": "the upstream sent no byte in time",
    "idle_timeout": "the upstream fell silent in the middle of its answer",
    "total_timeout": "the request took longer than it may",
}


@dataclass
class Attempt:
    """One attempt. `run` returns how it ended and leaves no upstream connection in use (I1)."""

    delivery: Delivery
    body: bytes
    settings: Settings
    pool: PoolSettings
    upstream: UpstreamConnection
    token: AccessToken
    scope: CancelScope
    counters: Counters
    #: Whether bytes of a body that is no stream have come, which are held back until it is whole or known to be good.
    has_held_body: bool = False

    def __post_init__(self) -> None:
        self._request = self.delivery.request
        self._attempt = self.delivery.attempt
        self._meter: TokenMeter | None = None

    def run(self) -> Outcome:
        """The attempt from token to last frame."""
        response: BaseHTTPResponse | None = None
        try:
            with self.scope:
                self.scope.total_deadline = time.monotonic() + self._request.deadline - time.time()
                response = self._request_upstream()
                if 300 <= response.status < 400:
                    message = "the upstream redirects; set FARM_UPSTREAM_URL to where it lives"
                    return self._fail("upstream_error", 502, "upstream_redirect", message)
                if is_retryable(response.status):
                    headers, body = select_headers(response), read_error_body(response)
                    return error_response(self._attempt, response.status, headers, body)
                return self._relay_response(response)
        except Cancelled as interruption:
            return self._handle_cancelled(interruption.reason)
        except TOKEN_FAILURES as error:
            return token_failure(error, self._attempt)
        except UpstreamUnreachable as error:
            return self._fail("unreachable", error.status, error.code, f"the upstream can't be reached ({error})")
        except ResponseTruncated:
            return self._fail_truncated()
        finally:
            if response is not None:
                response.close()

    def _request_upstream(self) -> BaseHTTPResponse:
        """The upstream's answer as soon as its headers are there; a 401 is tried once more with a fresh token."""
        self.scope.set_deadline("first_byte_timeout", self.settings.first_byte_timeout)
        token = self.token.get()
        response = self._send(token)
        if response.status == 401:
            response.close()
            self.counters.increment("attempts", self.pool.configured_name, "token_expired")
            response = self._send(self.token.get(stale=token))
        return response

    def _send(self, token: str) -> BaseHTTPResponse:
        self.scope.set_deadline("first_byte_timeout", self.settings.first_byte_timeout)
        return self.upstream.call(self._request, self.body, token)

    # An answer

    def _relay_response(self, response: BaseHTTPResponse) -> Outcome:
        """Frames of the answer: the head travels with the first byte."""
        delimited, is_stream = is_delimited(response), is_event_stream(response)
        tail = StreamCompletion(self._request.path, delimited=delimited) if is_stream else None
        parts = read_whole_json(response) if is_json(response) and not delimited else iter_body(response)
        rewriting = self._build_rewriter(response)
        if response.status < 400 and (is_stream or is_json(response)):
            self._meter = TokenMeter(is_stream=is_stream)
        try:
            for data in self._observe(self._sniff(response, parts), tail):
                self._forward(response, rewriting.feed(data) if rewriting else data)
        except NotAnAnswer as none:
            return self._handle_not_an_answer(response, none)
        if tail and not tail.is_complete():
            return self._fail_truncated()
        if rewriting:
            self._forward(response, rewriting.flush())
        if not self.delivery.begun:
            self._begin(response)
        self.delivery.stream.end()
        return Done()

    def _build_rewriter(self, response: BaseHTTPResponse) -> ResponseRewriter | None:
        """What is changed on the way; None when nothing is."""
        asked = self._request.model
        known = self.pool.model_map.get(asked, asked)
        is_stream = is_event_stream(response)
        model = (known, asked) if self.pool.map_back and known != asked and (is_stream or is_json(response)) else None
        made = ResponseRewriter(is_stream=is_stream, hides_usage=self._request.hides_usage, model=model)
        return made if made.is_needed and response.status < 400 else None

    def _observe(self, parts: Iterator[bytes], tail: StreamCompletion | None) -> Iterator[bytes]:
        """The parts, each looked at on its way."""
        for data in parts:
            if tail:
                tail.feed(data)
            if self._meter:
                self._meter.feed(data)
            yield data

    def _sniff(self, response: BaseHTTPResponse, parts: Iterator[bytes]) -> Iterator[bytes]:
        """The parts, from where it is sure that they are an answer. Raises NoAnswer."""
        is_error = response.status >= 400
        opening = ErrorSniffer("" if is_error else response.headers.get("content-type", ""))
        for data in parts:
            self.scope.check_lease()
            self.scope.set_deadline("idle_timeout", self.settings.idle_timeout)
            if opening.is_done:
                yield data
                continue
            if passed := opening.feed(data):
                yield passed
            self.has_held_body = opening.has_body
        if rest := opening.end():
            yield rest

    def _forward(self, response: BaseHTTPResponse, data: bytes) -> None:
        """Bytes on their way to the caller."""
        if not data:
            return
        if not self.delivery.begun:
            self._begin(response)
        self.delivery.stream.send_data(data)
        if self.delivery.stream.is_full():
            self.scope.set_deadline("idle_timeout", NEVER)
            self.delivery.stream.wait_for_room()
            self.scope.set_deadline("idle_timeout", self.settings.idle_timeout)

    def _begin(self, response: BaseHTTPResponse) -> None:
        self.delivery.begin(response.status, select_headers(response))

    def usage(self) -> Usage | None:
        """The tokens of what has reached the caller so far; None when the upstream has given no answer."""
        if not self.delivery.is_served:
            return None
        return self._meter.usage(self.body) if self._meter else Usage()

    # An end that is none

    def _handle_not_an_answer(self, response: BaseHTTPResponse, none: NotAnAnswer) -> Outcome:
        """A 2xx that is none: the error that it carries, else a 502 of ours."""
        if not none.body:
            return empty_response(self._attempt, str(none))
        status = error_status(none.body)
        failed = error_response(self._attempt, status, select_headers(response), none.body)
        if is_retryable(status):
            return failed
        self.delivery.reply_with_error(failed)
        return Done()

    def _handle_cancelled(self, reason: str) -> Outcome:
        if reason == "client_gone":
            self.delivery.stream.abandon()
            return Stopped()
        if reason in TIMEOUTS:
            code = reason if reason == "total_timeout" else f"upstream_{reason}"
            blameless = reason == "total_timeout"
            return self._fail("timeout", 504, code, TIMEOUTS[reason], end="timeout", blameless=blameless)
        message = "the worker lost its account in the middle of the request"
        return self._fail("worker_lost", 502, reason, message, end="worker_lost", blameless=True)

    def _fail_truncated(self) -> Outcome:
        return self._fail("cut", 502, "upstream_eof", "the upstream's answer broke off", end="upstream_eof")

    def fail_crashed(self) -> Outcome:
        """An end that nobody foresaw: the caller gets an answer all the same (I7)."""
        message = "the farm failed to relay this request"
        return self._fail("crashed", 500, "internal_error", message, blameless=True)

    def _fail(
        self,
        outcome: str,
        status: int,
        code: str,
        message: str,
        *,
        end: str = "upstream_error",
        blameless: bool = False,
    ) -> Outcome:
        """Before the first byte: may be retried. After it: the stream says that it is not whole, and ends."""
        why = build_failure(self._attempt, status, code, message)
        if not self.delivery.begun and not self.has_held_body:
            return Failed(outcome, why, blameless=blameless)
        self.delivery.fail(why)
        return Done(end)
