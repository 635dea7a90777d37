"""An operator cancels a request that waits or runs, and its caller is told."""

from redis import Redis
from rq.job import Job

from shared import clock
from shared.observability.request_log import RequestLog, build_entry
from shared.protocol.job_data import decode_request
from shared.protocol.messages import OUT_OF_BAND, Failure, Frame, FrameKind, RelayRequest
from shared.protocol.relay_queue import AHEAD_FIELD, REQUEST_CANCELLED, RelayQueue

#: 410, because clients don't retry it.
CANCELLED = Failure(410, REQUEST_CANCELLED, "an operator has cancelled this request")


def cancel_request(redis: Redis, queue: RelayQueue, request_id: str) -> str:
    """Returns `withdrawn` for a waiting request, `stopping` for a running one, `gone` if there is none of that id."""
    data, ahead = redis.hmget(Job.key_for(request_id), "data", AHEAD_FIELD)
    request = decode_request(data or b"")
    if request is None:
        return "gone"
    outcome = queue.cancel(request.pool, request_id, request.key, reason=REQUEST_CANCELLED)
    if outcome == "gone":
        return outcome
    redis.publish(request.channel, Frame(FrameKind.FAILURE, OUT_OF_BAND, CANCELLED.encode()).encode())
    if outcome == "withdrawn":
        # No worker will log it.
        record_withdrawn(redis, request, (ahead or b"").decode(errors="replace"))
    return outcome


def record_withdrawn(redis: Redis, request: RelayRequest, ahead: str) -> None:
    waited_ms = max(0, round(1000 * (clock.now() - request.enqueued_at)))
    times = {"queue_ms": waited_ms, "total_ms": waited_ms}
    entry = build_entry(request, status=CANCELLED.status, code=CANCELLED.code, ahead=ahead, **times)
    RequestLog(redis).write([entry])
