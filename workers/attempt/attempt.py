"""One attempt of a relay request on one credential: access token, upstream call, frames (I6, I7)."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from redis.exceptions import RedisError
from urllib3 import BaseHTTPResponse

from shared import clock, names
from shared.errors import AccountResting, FarmError
from shared.observability.counters import Counters
from shared.protocol.relay_queue import CLIENT_GONE, REQUEST_CANCELLED
from shared.response.endpoints import InvalidResponse
from shared.response.usage import Usage
from shared.settings.schema import PoolSettings, Settings
from workers.attempt.cancel_scope import Cancelled, CancelScope
from workers.attempt.delivery import Delivery
from workers.attempt.outcomes import OUT_OF_CREDIT, Done, Failed, Outcome, Stopped, classify_token_failure, is_retryable
from workers.attempt.upstream_errors import (
    build_failure,
    classify_disguised_error,
    classify_error_response,
    classify_invalid_response,
    find_evidence,
    find_retry_after,
)
from workers.credentials.access_token import TOKEN_FAILURES, AccessToken
from workers.credentials.api_key import ApiKey
from workers.response.error_sniffer import IncompleteResponse
from workers.response.event_stream import NEVER
from workers.response.response_processor import ResponseProcessor
from workers.upstream.allowance import find_exhausted_seconds, find_limit_names
from workers.upstream.client import (
    ResponseTruncated,
    UpstreamConnection,
    UpstreamMisconfigured,
    UpstreamUnreachable,
    iter_body,
    iter_error_body,
    select_headers,
)
from workers.upstream.http_connection import ConnectionDropped, RequestNotSendable
from workers.upstream.http_response import is_delimited, list_header_names
from workers.upstream.stream_options import StreamOptionsSupport, drop_usage_request

log = logging.getLogger("farm.relay")
#: Seconds that the body of an error may take at most.
MAX_ERROR_SECONDS = 10.0
#: Ends of an attempt that cut off nothing when the response has been complete before.
ENDS_OF_SILENCE = ("response_over", "idle_timeout", "total_timeout")
#: RFC 9110 sections 15.3.5 and 15.3.6.
STATUSES_WITHOUT_CONTENT = (204, 205)
#: Seconds for which a credential rests after its connection broke under a request.
MIN_REST_SECONDS, MAX_REST_SECONDS = 0.5, 60.0
LOST_WORKER_MESSAGES = {
    "lease_lost": "the worker lost its credential in the middle of the request",
    "worker_stopped": "the worker was stopped in the middle of the request",
}
TIMEOUT_MESSAGES = {
    "first_byte_timeout": "the upstream sent no byte in time",
    "idle_timeout": "the upstream stopped sending in the middle of its response",
    "total_timeout": "the request exceeded its time limit",
}


@dataclass
class Attempt:
    """One attempt. `run` returns its outcome and leaves no upstream connection in use (I1)."""

    delivery: Delivery
    body: bytes
    settings: Settings
    pool: PoolSettings
    #: Returns the worker's connection. Raises UpstreamMisconfigured.
    open_upstream: Callable[[], UpstreamConnection]
    token: AccessToken | ApiKey
    scope: CancelScope
    counters: Counters
    stream_options: StreamOptionsSupport

    def __post_init__(self) -> None:
        self._request = self.delivery.request
        self._attempt_number = self.delivery.attempt_number
        self._response: BaseHTTPResponse | None = None
        self._processor: ResponseProcessor | None = None
        self._access_token = ""
        #: Whether the access token was fetched for this request, so that another one would be refused, too.
        self._has_fresh_token = False
        #: When the request was last sent, by the monotonic clock.
        self._sent_at = 0.0
        #: When the head of the last response arrived, by the monotonic clock.
        self._answered_at = 0.0
        #: Whether the body asks for a usage that only the farm wants.
        self._has_usage_request = self._request.hides_usage
        #: Whether the upstream has refused the request while it had that.
        self._is_usage_request_suspected = False

    def run(self) -> Outcome:
        outcome = self._run()
        if isinstance(outcome, Failed) and not outcome.evidence.source:
            return replace(outcome, evidence=find_evidence(outcome, self.upstream_status))
        return outcome

    def _run(self) -> Outcome:
        try:
            if self._has_usage_request and self.stream_options.is_refused():
                self._drop_usage_request()
            with self.scope:
                self.scope.total_deadline = time.monotonic() + self._request.deadline - clock.now()
                outcome = self._handle_response(self._request_upstream())
                if self._response is not None and self._is_token_doubtful(outcome):
                    self._response.close()
                    outcome = self._handle_response(self._send_with_fresh_token())
                return outcome
        except Cancelled as cancelled:
            return self._handle_cancelled(cancelled.reason)
        except FarmError as error:
            return self._handle_error(error)
        except RedisError as error:
            log.warning("Redis is lost: %s", error, extra={"action": "redis_lost", "request_id": self._request.id})
            return self._fail(
                "redis_lost", 503, "store_unavailable", "the farm's Redis does not respond", blameless=True
            )
        finally:
            if self._response is not None:
                self._response.close()

    def _request_upstream(self) -> BaseHTTPResponse:
        """Returns the upstream's response once its headers have arrived; retries a 401 once with a fresh token."""
        self.scope.set_deadline("first_byte_timeout", self.settings.first_byte_timeout)
        self._access_token = self.token.get()
        response = self._send(self._access_token)
        if response.status == 401:
            response.close()
            response = self._send_with_fresh_token()
        return response

    def _send_with_fresh_token(self) -> BaseHTTPResponse:
        """Sends the request once more: its access token seems to have expired."""
        self.counters.increment("attempts", self.pool.configured_name, "token_expired")
        self._has_fresh_token = True
        return self._send(self.token.get(stale=self._access_token))

    def _is_token_doubtful(self, outcome: Outcome) -> bool:
        """Whether the upstream has refused the access token with a status below 300, and a fresh one may do."""
        is_refused = isinstance(outcome, Failed) and outcome.failure.code == "upstream_auth_failed"
        return is_refused and not self._has_fresh_token

    def _send(self, token: str) -> BaseHTTPResponse:
        self.scope.set_deadline("first_byte_timeout", self.settings.first_byte_timeout)
        self._sent_at = time.monotonic()
        self._response = self.open_upstream().call(self._request, self.body, token)
        self._answered_at = time.monotonic()
        return self._response

    def _drop_usage_request(self) -> None:
        self.body = drop_usage_request(self.body)
        self._has_usage_request = False

    def _send_without_usage_request(self, response: BaseHTTPResponse, error_body: bytes) -> Outcome | None:
        """The outcome of the request without what the farm has added to it; None if that can't be to blame."""
        if not self._has_usage_request or self.scope.was_cancelled:
            return None
        if not self.stream_options.may_cause(response.status, error_body):
            return None
        response.close()
        self._drop_usage_request()
        self._is_usage_request_suspected = True
        return self._handle_response(self._send(self.token.get()))

    # The response

    def _handle_response(self, response: BaseHTTPResponse) -> Outcome:
        if 300 <= response.status < 400:
            message = "the upstream redirects; set FARM_UPSTREAM_URL to the address that it redirects to"
            return self._fail("upstream_error", 502, "upstream_redirect", message)
        if response.status in STATUSES_WITHOUT_CONTENT:
            return classify_invalid_response(self._attempt_number, "an empty body")
        return self._relay_error(response) if response.status >= 400 else self._relay_response(response)

    def _relay_response(self, response: BaseHTTPResponse) -> Outcome:
        """Publishes the response as frames. The head goes out with the first byte."""
        processor = self._create_processor(response)
        try:
            for data in iter_body(response):
                self.scope.check_lease()
                self.scope.set_deadline("idle_timeout", self.settings.idle_timeout)
                self._forward(response, processor.feed(data))
                if self._limit_silence_after_end(processor):
                    break
            return self._finish(response, processor)
        except InvalidResponse as error:
            is_free = not self.delivery.has_started
            retried = self._send_without_usage_request(response, error.body) if is_free else None
            return retried or self._handle_invalid_response(response, error)
        except IncompleteResponse:
            return self._fail_truncated()

    def _limit_silence_after_end(self, processor: ResponseProcessor) -> bool:
        """Sets the deadline of a stream that has said all, although HTTP has not ended it. True when it has passed."""
        if processor.ends_at == NEVER:
            return False
        seconds_left = processor.ends_at - time.monotonic()
        self.scope.set_deadline("response_over", seconds_left)
        return seconds_left <= 0

    def _finish(self, response: BaseHTTPResponse, processor: ResponseProcessor, *, cut: bool = False) -> Outcome:
        """Ends the reply of a complete response. Raises InvalidResponse, IncompleteResponse."""
        rest = processor.finish(cut=cut)
        if not self.delivery.has_started:
            self._send_head(response)
        if rest:
            self.delivery.stream.send_data(rest)
        self.delivery.stream.send_end()
        return Done("upstream_error" if processor.has_error else "done")

    def _finish_cut(self) -> Outcome | None:
        """Ends the reply well if the response was complete before it broke off or fell silent; else None."""
        response, processor = self._response, self._processor
        if response is None or processor is None or not processor.is_complete_stream():
            return None
        try:
            return self._finish(response, processor, cut=True)
        except InvalidResponse as error:
            return self._handle_invalid_response(response, error)

    def _create_processor(self, response: BaseHTTPResponse) -> ResponseProcessor:
        requested_model, upstream_model = self._request.model, self.upstream_model
        is_renamed = self.pool.map_back and upstream_model != requested_model
        self._processor = ResponseProcessor(
            self._request,
            self.body,
            response.headers.get("content-type", ""),
            delimited=is_delimited(response),
            model=(upstream_model, requested_model) if is_renamed else None,
        )
        return self._processor

    def _relay_error(self, response: BaseHTTPResponse) -> Outcome:
        """Handles a status of 400 and more, whatever its type: its message reaches the caller in OpenAI's shape."""
        status, headers, body = response.status, select_headers(response), self._read_error_body(response)
        if retried := self._send_without_usage_request(response, body):
            return retried
        failed = classify_error_response(self._attempt_number, status, headers, body, self.exhausted_seconds())
        if failed.response is None or failed.outcome == OUT_OF_CREDIT or is_retryable(status):
            return failed
        self.delivery.send_head(status, failed.response.headers)
        self.delivery.stream.send_data(failed.response.body)
        self.delivery.stream.send_end()
        return Done()

    def _read_error_body(self, response: BaseHTTPResponse) -> bytes:
        """What arrives of an error's body in a few seconds: its status is known, and worth more than a timeout."""
        parts: list[bytes] = []
        self.scope.set_deadline("error_body", min(MAX_ERROR_SECONDS, self.settings.idle_timeout))
        try:
            parts.extend(iter_error_body(response))
        except Cancelled as cancelled:
            if cancelled.reason != "error_body":
                raise
        return b"".join(parts)

    def _forward(self, response: BaseHTTPResponse, data: bytes) -> None:
        """Sends bytes to the caller. The idle timeout does not run while a slow caller applies backpressure."""
        if not data:
            return
        if not self.delivery.has_started:
            self._send_head(response)
        self.delivery.stream.send_data(data)
        if self.delivery.stream.is_full():
            self.scope.set_deadline("idle_timeout", NEVER)
            self.delivery.stream.wait_for_room()
            self.scope.set_deadline("idle_timeout", self.settings.idle_timeout)

    def _send_head(self, response: BaseHTTPResponse) -> None:
        self.stream_options.is_accepted |= self._has_usage_request
        if self._is_usage_request_suspected:
            self.stream_options.record_refusal()
        content_type = self._processor.content_type if self._processor else ""
        self.delivery.send_head(response.status, {**select_headers(response), "content-type": content_type})

    @property
    def upstream_model(self) -> str:
        """The upstream's name of the model; '' for a request without one."""
        return self.pool.model_map.get(self._request.model, self._request.model)

    @property
    def limited_model(self) -> str:
        """The model as limits per model know it; '' for a request without one."""
        return names.limited_model(self.upstream_model)

    def usage(self) -> Usage | None:
        """Tokens of the response as far as it has reached the caller; None when the upstream has not served it."""
        if not self.delivery.is_served:
            return None
        return self._processor.usage() if self._processor else Usage()

    @property
    def upstream_status(self) -> int:
        """Status of the upstream's last response, 0 for none."""
        return self._response.status if self._response is not None else 0

    def exhausted_seconds(self) -> float:
        """Seconds for which the account has nothing left, as the upstream's last response says; 0.0 if it may go on.

        A reset counts from the head of the response: a stream may have taken longer than that. A Retry-After counts if
        there was no error: those of errors are judged with their status.
        """
        limits = self.limit_headers()
        if not limits:
            return 0.0
        if self.upstream_status >= 400:
            return find_exhausted_seconds(limits, clock.now())
        until_reset = find_exhausted_seconds(limits, self.answered_at) - self._seconds_since_answer()
        return max(0.0, until_reset, min(self.settings.cooling_limit, find_retry_after(limits) or 0.0))

    @property
    def answered_at(self) -> float:
        """When the head of the upstream's last response arrived, in seconds since the epoch."""
        return clock.now() - self._seconds_since_answer()

    def _seconds_since_answer(self) -> float:
        return time.monotonic() - self._answered_at

    def limit_headers(self) -> dict[str, str]:
        """The headers, in lower case, in which the upstream's last response tells what the account has left."""
        response = self._response
        found = find_limit_names(list_header_names(response)) if response is not None else ()
        return {name: response.headers[name] for name in found} if response is not None and found else {}

    # Failures

    def _handle_invalid_response(self, response: BaseHTTPResponse, error: InvalidResponse) -> Outcome:
        """Handles a 2xx that is an error in disguise: another credential may do better, whatever status it names."""
        if self.delivery.has_started:
            return self._fail_truncated()
        if not error.body:
            return classify_invalid_response(self._attempt_number, str(error))
        return classify_disguised_error(self._attempt_number, select_headers(response), error.body)

    def _handle_error(self, error: FarmError) -> Outcome:
        """The outcome of an attempt without a whole response."""
        match error:
            case UpstreamUnreachable():
                return self._fail("unreachable", error.status, error.code, f"the upstream can't be reached ({error})")
            case ConnectionDropped():
                message = f"the upstream closed the connection without a response ({error})"
                return self._rest(self._fail("unreachable", 502, "upstream_unreachable", message))
            case ResponseTruncated():
                return self._finish_cut() or self._rest(self._fail_truncated())
            case AccountResting():
                return self._fail("rate_limited", 429, "upstream_error", f"{error}", blameless=True)
            case UpstreamMisconfigured():
                return self._refuse(502, "upstream_misconfigured", f"the farm can't use its setting {error}")
            case RequestNotSendable():
                return self._refuse(500, "internal_error", f"the farm can't send this request ({error})")
        if isinstance(error, TOKEN_FAILURES):
            return classify_token_failure(error, self._attempt_number)
        raise error

    def _handle_cancelled(self, reason: str) -> Outcome:
        if reason in (CLIENT_GONE, REQUEST_CANCELLED):
            self.delivery.stream.abandon()
            return Stopped(reason)
        if reason in ENDS_OF_SILENCE and (outcome := self._finish_cut()):
            return outcome
        if reason in TIMEOUT_MESSAGES:
            code = reason if reason == "total_timeout" else f"upstream_{reason}"
            blameless = reason == "total_timeout"
            return self._fail("timeout", 504, code, TIMEOUT_MESSAGES[reason], end_reason="timeout", blameless=blameless)
        message = LOST_WORKER_MESSAGES.get(reason, LOST_WORKER_MESSAGES["lease_lost"])
        return self._fail("worker_lost", 502, reason, message, end_reason="worker_lost", blameless=True)

    def _fail_truncated(self) -> Outcome:
        return self._fail("cut", 502, "upstream_eof", "the upstream's response broke off", end_reason="upstream_eof")

    def fail_crashed(self) -> Outcome:
        """Ends the attempt after an unexpected exception, so that the caller still gets a reply (I7)."""
        message = "the farm failed to relay this request"
        return self._fail("crashed", 500, "internal_error", message, blameless=True)

    def _rest(self, outcome: Outcome) -> Outcome:
        """Rests the credential for twice as long as the request ran, since the upstream may still be working on it."""
        seconds = min(MAX_REST_SECONDS, max(MIN_REST_SECONDS, 2 * (time.monotonic() - self._sent_at)))
        return replace(outcome, rest_seconds=seconds) if isinstance(outcome, Failed) else outcome

    def _refuse(self, status: int, code: str, message: str) -> Outcome:
        """Ends a request that can't be sent on any credential. Nobody is blamed."""
        self.delivery.send_failure(build_failure(self._attempt_number, status, code, message))
        return Done("upstream_error")

    def _fail(
        self,
        outcome: str,
        status: int,
        code: str,
        message: str,
        *,
        end_reason: str = "upstream_error",
        blameless: bool = False,
    ) -> Outcome:
        """Before the first byte the attempt fails and may be retried; after it the reply ends with the failure."""
        failure = build_failure(self._attempt_number, status, code, message)
        if not self.delivery.has_started:
            return Failed(outcome, failure, blameless=blameless)
        self.delivery.send_failure(failure)
        return Done(end_reason)
