"""One attempt of one request on one credential: token, upstream call, frames (I6, I7); it knows no RQ and no Redis."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from urllib3 import BaseHTTPResponse

from shared.observability.counters import Counters
from shared.settings.schema import PoolSettings, Settings
from workers.attempt.cancel_scope import Interrupted, Section
from workers.attempt.delivery import Delivery
from workers.attempt.outcomes import Done, Failed, Outcome, Stopped, is_retried, no_token
from workers.attempt.upstream_errors import error_answer, error_status, failure, no_answer
from workers.credentials.access_token import TOKEN_FAILURES, AccessToken
from workers.reply.reply_stream import nobody
from workers.response.error_sniffer import NoAnswer, Opening
from workers.response.rewriter import Rewriting
from workers.response.stream_completion import StreamTail
from workers.response.token_meter import Meter, Usage
from workers.upstream.client import (
    AnswerCut,
    UpstreamConnection,
    UpstreamUnreachable,
    chunks,
    first_of,
    is_event_stream,
    is_json,
    passed_headers,
    whole_json,
)
from workers.upstream.http_response import is_delimited

log = logging.getLogger("farm.relay")
FOR_EVER = float("inf")
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
    section: Section
    counters: Counters
    #: Whether bytes of a body that is no stream have come, which are held back until it is whole or known to be good.
    answering: bool = False

    def __post_init__(self) -> None:
        self._request = self.delivery.request
        self._number = self.delivery.number
        self._meter: Meter | None = None

    def run(self) -> Outcome:
        """The attempt from token to last frame."""
        response: BaseHTTPResponse | None = None
        try:
            with self.section:
                self.delivery.stream.on_left = self._left
                self.section.total = time.monotonic() + self._request.deadline - time.time()
                response = self._answered()
                if 300 <= response.status < 400:
                    message = "the upstream redirects; set FARM_UPSTREAM_URL to where it lives"
                    return self._failed("upstream_error", 502, "upstream_redirect", message)
                if is_retried(response.status):
                    headers, body = passed_headers(response), first_of(response)
                    return error_answer(self._number, response.status, headers, body)
                return self._relay(response)
        except Interrupted as interruption:
            return self._interrupted(interruption.reason)
        except TOKEN_FAILURES as error:
            return no_token(error, self._number)
        except UpstreamUnreachable as error:
            return self._failed("unreachable", error.status, error.code, f"the upstream can't be reached ({error})")
        except AnswerCut:
            return self._cut()
        finally:
            self.delivery.stream.on_left = nobody
            if response is not None:
                response.close()

    def _left(self) -> None:
        """The front says that nobody waits for the answer."""
        if self.settings.on_disconnect == "cancel":
            self.section.interrupt("client_gone")

    def _answered(self) -> BaseHTTPResponse:
        """The upstream's answer as soon as its headers are there; a 401 is tried once more with a fresh token."""
        self.section.expect("first_byte_timeout", self.settings.first_byte_timeout)
        token = self.token.get()
        response = self._call(token)
        if response.status == 401:
            response.close()
            self.counters.add("attempts", self.pool.family, "token_expired")
            response = self._call(self.token.get(stale=token))
        return response

    def _call(self, token: str) -> BaseHTTPResponse:
        self.section.expect("first_byte_timeout", self.settings.first_byte_timeout)
        return self.upstream.call(self._request, self.body, token)

    # An answer

    def _relay(self, response: BaseHTTPResponse) -> Outcome:
        """Frames of the answer: the head travels with the first byte."""
        delimited, is_stream = is_delimited(response), is_event_stream(response)
        tail = StreamTail(self._request.path, delimited=delimited) if is_stream else None
        parts = whole_json(response) if is_json(response) and not delimited else chunks(response)
        rewriting = self._rewriting(response)
        if response.status < 400 and (is_stream or is_json(response)):
            self._meter = Meter(is_stream=is_stream)
        try:
            for data in self._watched(self._opened(response, parts), tail):
                self._pass(response, rewriting.add(data) if rewriting else data)
        except NoAnswer as none:
            return self._no_answer(response, none)
        if tail and not tail.is_whole():
            return self._cut()
        if rewriting:
            self._pass(response, rewriting.end())
        if not self.delivery.begun:
            self._begin(response)
        self.delivery.stream.end()
        return Done()

    def _rewriting(self, response: BaseHTTPResponse) -> Rewriting | None:
        """What is changed on the way; None when nothing is."""
        asked = self._request.model
        known = self.pool.model_map.get(asked, asked)
        is_stream = is_event_stream(response)
        model = (known, asked) if self.pool.map_back and known != asked and (is_stream or is_json(response)) else None
        made = Rewriting(is_stream=is_stream, hides_usage=self._request.hides_usage, model=model)
        return made if made.is_needed and response.status < 400 else None

    def _watched(self, parts: Iterator[bytes], tail: StreamTail | None) -> Iterator[bytes]:
        """The parts, each looked at on its way."""
        for data in parts:
            if tail:
                tail.add(data)
            if self._meter:
                self._meter.add(data)
            yield data

    def _opened(self, response: BaseHTTPResponse, parts: Iterator[bytes]) -> Iterator[bytes]:
        """The parts, from where it is sure that they are an answer. Raises NoAnswer."""
        is_error = response.status >= 400
        opening = Opening("" if is_error else response.headers.get("content-type", ""))
        for data in parts:
            self.section.look_at_lease()
            self.section.expect("idle_timeout", self.settings.idle_timeout)
            if opening.is_over:
                yield data
                continue
            if passed := opening.add(data):
                yield passed
            self.answering = opening.has_body
        if rest := opening.end():
            yield rest

    def _pass(self, response: BaseHTTPResponse, data: bytes) -> None:
        """Bytes on their way to the caller."""
        if not data:
            return
        if not self.delivery.begun:
            self._begin(response)
        self.delivery.stream.data(data)
        if self.delivery.stream.is_full():
            self.section.expect("idle_timeout", FOR_EVER)
            self.delivery.stream.wait_for_room()
            self.section.expect("idle_timeout", self.settings.idle_timeout)

    def _begin(self, response: BaseHTTPResponse) -> None:
        self.delivery.begin(response.status, passed_headers(response))

    def usage(self) -> Usage | None:
        """The tokens of what has reached the caller so far; None when the upstream has given no answer."""
        if not self.delivery.has_answer:
            return None
        return self._meter.usage(self.body) if self._meter else Usage()

    # An end that is none

    def _no_answer(self, response: BaseHTTPResponse, none: NoAnswer) -> Outcome:
        """A 2xx that is none: the error that it carries, else a 502 of ours."""
        if not none.body:
            return no_answer(self._number, str(none))
        status = error_status(none.body)
        failed = error_answer(self._number, status, passed_headers(response), none.body)
        if is_retried(status):
            return failed
        self.delivery.give_up(failed)
        return Done()

    def _interrupted(self, reason: str) -> Outcome:
        if reason == "client_gone":
            self.delivery.stream.give_up()
            return Stopped()
        if reason in TIMEOUTS:
            code = reason if reason == "total_timeout" else f"upstream_{reason}"
            blameless = reason == "total_timeout"
            return self._failed("timeout", 504, code, TIMEOUTS[reason], end="timeout", blameless=blameless)
        message = "the worker lost its account in the middle of the request"
        return self._failed("worker_lost", 502, reason, message, end="worker_lost", blameless=True)

    def _cut(self) -> Outcome:
        return self._failed("cut", 502, "upstream_eof", "the upstream's answer broke off", end="upstream_eof")

    def crashed(self) -> Outcome:
        """An end that nobody foresaw: the caller gets an answer all the same (I7)."""
        message = "the farm failed to relay this request"
        return self._failed("crashed", 500, "internal_error", message, blameless=True)

    def _failed(
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
        why = failure(self._number, status, code, message)
        if not self.delivery.begun and not self.answering:
            return Failed(outcome, why, blameless=blameless)
        self.delivery.fail(why)
        return Done(end)
