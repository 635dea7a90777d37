"""The relay routes: a request of OpenAI's API becomes a job, and the frames of its reply become the answer."""

import errno
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response

from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import reservation
from shared.errors import ApiError
from shared.protocol.messages import Frame, Head, RelayRequest
from shared.protocol.sse import WholeEvents
from web import sse
from web.access.private_callers import POOL_HEADER
from web.patience import patiently
from web.request import limit_headers
from web.request.body import read_body
from web.request.pending import Pending, StillWaiting
from web.request_context import present
from web.server import disconnect
from web.services import Parts, parts

blueprint = Blueprint("relay", __name__)

#: Paths below /v1 (and below /) that are relayed as they are.
ENDPOINTS = (
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "moderations",
    "images/generations",
    "images/edits",
    "images/variations",
    "audio/speech",
    "audio/transcriptions",
    "audio/translations",
)
#: Those whose streams tell their usage when they are asked to.
WITH_USAGE = ("chat/completions", "completions")
#: Headers of the caller that reach the upstream, besides content-type, and what WSGI calls them (PEP 3333).
PASSED_HEADERS = {
    name: f"HTTP_{name.upper().replace('-', '_')}"
    for name in ("accept", "accept-language", "idempotency-key", "openai-beta")
}
EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
#: Seconds of patience for an answer that has no keep-alive; the request's own limits end it.
LONG = 1e9


def relay(endpoint: str) -> Response:
    """Relays one request to that path below the upstream's base URL."""
    farm = parts()
    request, kept = present()
    kept.endpoint = f"/{endpoint}"
    key = caller(farm)
    kept.caller = key.id
    asked = read_body(request)
    kept.model = asked.model
    pool = farm.pools.for_model(asked.model, key)
    kept.pool = pool.family
    patiently(lambda: farm.usable.check(pool.name))
    sent = asked.with_model(pool.model_map.get(asked.model, asked.model))
    hides_usage = pool.count_usage and endpoint in WITH_USAGE and asked.lacks_usage
    message = new_request(
        farm,
        pool.name,
        key,
        stream=asked.stream,
        model=asked.model,
        band="batch" if asked.is_flexible else key.band,
        hides_usage=hides_usage,
    )
    tokens = reservation(len(asked.body), asked.most_tokens, asked.answers)
    body = (sent.with_usage() if hides_usage else sent).body
    return answer(submit(farm, message, body, key, tokens), farm.settings.keepalive)


def caller(farm: Parts) -> ApiKey:
    """The key of the present request. Raises ApiError."""
    request, _ = present()
    presented, address = request.headers.get("authorization", ""), farm.proxies.client(request)
    pool = request.headers.get(POOL_HEADER, "")
    return patiently(lambda: farm.authenticator.caller(presented, address, pool))


for endpoint in ENDPOINTS:
    for prefix in ("/v1/", "/"):
        blueprint.add_url_rule(prefix + endpoint, view_func=relay, methods=["POST"], defaults={"endpoint": endpoint})


def new_request(farm: Parts, pool: str, key: ApiKey, path: str = "", **more: Any) -> RelayRequest:
    """The present request, on its way to an upstream; `path` when that is another one there."""
    now = time.time()
    request, kept = present()
    query = f"?{request.query_string.decode('latin-1')}" if request.query_string else ""
    environ = request.environ
    headers = {name: environ[key] for name, key in PASSED_HEADERS.items() if key in environ}
    if request.method == "POST":
        headers["content-type"] = request.content_type or "application/json"
    headers = {name: value for name, value in headers.items() if value.isascii() and value.isprintable()}
    return RelayRequest(
        id=kept.request_id,
        pool=pool,
        path=(path or kept.endpoint) + query,
        headers=headers,
        front=farm.hub.process_id,
        channel=farm.hub.channel(kept.request_id),
        enqueued_at=now,
        deadline=now + farm.pools.total_timeout(pool),
        method=request.method,
        key=key.id,
        **more,
    )


def submit(farm: Parts, message: RelayRequest, body: bytes, key: ApiKey, tokens: int = 0) -> Pending:
    """Enqueues a request, with so many tokens reserved for it. Raises ApiError."""
    request, kept = present()
    client = getattr(request.environ.get("gunicorn.socket"), "raw", None)
    pending = Pending(
        request=message,
        queue=farm.queue,
        hub=farm.hub,
        drain_rate=farm.drain_rate,
        queue_timeout=farm.settings.queue_timeout,
        cancels=farm.settings.on_disconnect == "cancel",
        is_down=lambda: farm.usable.is_down(message.pool),
        client=client,
        key=key,
        journal=farm.journal,
        tokens=tokens,
    )
    pending.submit(body)
    kept.pop("caller", None)
    admitted = pending.admitted
    kept.answer_headers = {
        **limit_headers.headers(key, admitted.standing),
        "x-queue-position": str(admitted.before + 1),
        "x-queue-eta-ms": str(farm.drain_rate.eta_ms(message.pool, admitted.before)),
    }
    return pending


def answer(pending: Pending, keepalive: float) -> Response:
    """The answer, its status decided by the first frame; a stream that has to wait long begins with a comment."""
    try:
        head, frames = pending.first(keepalive if pending.request.stream else LONG)
        return begun(pending, head, frames, keepalive)
    except StillWaiting:
        return streamed(pending, begun_late(pending, keepalive), 200, {"content-type": EVENT_STREAM})
    except BaseException:
        pending.close()
        raise


def begun(pending: Pending, head: Head, frames: list[Frame], keepalive: float) -> Response:
    """An answer whose head is here, by the kind of its body."""
    headers = {**head.headers, **timing_headers(head)}
    kind = head.headers.get("content-type", "").lower()
    if kind.startswith(EVENT_STREAM):
        return streamed(pending, events(pending, frames, keepalive), head.status, headers)
    if kind.startswith("application/json") or head.status >= 400:
        return whole(pending, frames, head.status, headers)
    return streamed(pending, binary(pending, frames), head.status, headers)


def whole(pending: Pending, frames: list[Frame], status: int, headers: dict[str, str]) -> Response:
    """An answer that is sent when all of it is there, so that never half a JSON reaches a caller."""
    try:
        body = b"".join(pending.body(frames, LONG))
    finally:
        pending.close()
    return Response(body, status, headers)


def streamed(pending: Pending, body: Iterator[bytes], status: int, headers: dict[str, str]) -> Response:
    """An answer that is sent as it comes; when the caller leaves, its job ends."""
    response = Response(body, status, {**headers, **STREAM_HEADERS})
    response.call_on_close(pending.close)
    return response


def events(pending: Pending, frames: list[Frame], keepalive: float) -> Iterator[bytes]:
    """Server-sent events, with comments in silence and an error event where the rest is missing."""
    whole_events = WholeEvents()
    try:
        for data in pending.body(frames, keepalive):
            complete = whole_events.add(data) if data else sse.COMMENT
            if complete:
                yield complete
        yield whole_events.rest()
    except ApiError as error:
        yield sse.error_event(error)


def begun_late(pending: Pending, keepalive: float) -> Iterator[bytes]:
    """A stream whose status was sent before its first frame: an error can only be an event now."""
    yield sse.COMMENT
    while True:
        try:
            head, frames = pending.first(keepalive)
            break
        except StillWaiting:
            yield sse.COMMENT
        except ApiError as error:
            yield sse.error_event(error)
            return
    if head.headers.get("content-type", "").lower().startswith(EVENT_STREAM):
        yield from events(pending, frames, keepalive)
        return
    yield late_answer(pending, frames)


def late_answer(pending: Pending, frames: list[Frame]) -> bytes:
    """An answer that is no stream, as the one event that a stream can carry it in."""
    try:
        body = b"".join(pending.body(frames, LONG))
    except ApiError as error:
        return sse.error_event(error)
    return b"data: " + body.replace(b"\n", b" ") + b"\n\n"


def binary(pending: Pending, frames: list[Frame]) -> Iterator[bytes]:
    """Bytes as they come; where the rest is missing the connection breaks, which no client takes for the end."""
    try:
        for data in pending.body(frames, LONG):
            if data:
                yield data
    except ApiError:
        disconnect.reset(pending.client)
        raise ConnectionResetError(errno.ECONNRESET, "the answer is not whole") from None


def timing_headers(head: Head) -> dict[str, Any]:
    """How the request came to its answer."""
    return {
        "x-farm-attempts": str(head.attempts),
        "x-queue-wait-ms": str(head.queue_wait_ms),
        "openai-processing-ms": str(head.first_byte_ms),
    }
