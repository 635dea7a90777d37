"""What one attempt has delivered to the caller so far: head, body or failure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from shared import clock
from shared.observability.counters import Counters
from shared.observability.request_log import LogEntry, build_entry
from shared.protocol.messages import Failure, Head, RelayRequest
from shared.response.usage import Usage
from workers.attempt.outcomes import Failed
from workers.reply.reply_stream import ReplyStream

#: Status in the request log when the caller had gone before there was a response.
CLIENT_GONE_STATUS = 499


@dataclass
class Delivery:
    """The reply of one attempt, on its way to the front."""

    request: RelayRequest
    #: From 1.
    attempt_number: int
    stream: ReplyStream
    counters: Counters
    #: Called when the upstream's first byte has arrived, with the time when the attempt started.
    on_first_byte: Callable[[float], None]
    #: Whether the reply has started: from then on nothing is retried.
    has_started: bool = False
    #: The status that the caller got, 0 before; why it got no response, or only part of one.
    status: int = 0
    failure: Failure | None = None
    #: When the attempt started, and when its first byte arrived (0 before), seconds since the epoch.
    started_at: float = field(default_factory=clock.now)
    first_byte_at: float = 0.0
    #: The request's failed attempts, for the request log.
    tried: str = ""
    #: Whose requests were ahead of it at admission, for the request log.
    ahead: str = ""

    @property
    def is_served(self) -> bool:
        """Whether the upstream has responded without an error."""
        return self.has_started and 0 < self.status < 400

    def send_head(self, status: int, headers: dict[str, str]) -> None:
        """Starts the reply. The head goes out together with the first byte."""
        self.has_started = True
        self.first_byte_at = clock.now()
        self.status = status
        self.on_first_byte(self.started_at)
        self.stream.send_head(self._build_head(status, headers))
        self.counters.observe("time_to_first_token_seconds", self.first_byte_at - self.request.enqueued_at)

    def send_failure(self, failure: Failure) -> None:
        """Ends the reply as failed, whether it has started or not."""
        self.has_started = True
        self.failure = failure
        self.stream.send_failure(failure)

    def reply_with_error(self, failed: Failed) -> bool:
        """Replies after the last attempt has failed: with the upstream's own error if there is one, else with ours.

        False when a reply had started before.
        """
        if self.has_started:
            return False
        if failed.response is None:
            self.send_failure(failed.failure)
            return True
        self.has_started = True
        self.failure = failed.failure
        self.status = failed.response.status
        self.stream.send_head(self._build_head(failed.response.status, failed.response.headers))
        self.stream.send_data(failed.response.body)
        self.stream.send_end()
        return True

    def _build_head(self, status: int, headers: dict[str, str]) -> Head:
        queue_seconds = self.started_at - self.request.enqueued_at
        upstream_seconds = clock.now() - self.started_at
        return Head(
            status, headers, self.attempt_number, to_milliseconds(queue_seconds), to_milliseconds(upstream_seconds)
        )

    def build_log_entry(self, end_reason: str, credential_id: str, usage: Usage | None) -> LogEntry:
        """The request's entry in the request log, as of now."""
        request, failure, usage = self.request, self.failure, usage or Usage()
        return build_entry(
            request,
            status=self.status or (failure.status if failure else CLIENT_GONE_STATUS),
            attempts=self.attempt_number,
            credential=credential_id,
            queue_ms=to_milliseconds(self.started_at - request.enqueued_at),
            first_ms=to_milliseconds(self.first_byte_at - request.enqueued_at) if self.first_byte_at else 0,
            total_ms=to_milliseconds(clock.now() - request.enqueued_at),
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            estimated=int(usage.estimated),
            code=failure.code if failure else "" if end_reason == "done" else end_reason,
            end=end_reason,
            tried=self.tried,
            ahead=self.ahead,
        )


def to_milliseconds(seconds: float) -> int:
    """Rounds; never negative, although the clocks of two hosts may differ."""
    return max(0, round(1000 * seconds))
