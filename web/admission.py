"""Admits a relay request whose body has been read: selects its pool, and enqueues it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Request

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import estimate_tokens
from shared.errors import ApiError
from shared.protocol.large_body import LargeBody
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_for
from shared.settings.schema import PoolSettings
from web.replay.caller import Caller
from web.replay.idempotency_key import IDEMPOTENCY_HEADER
from web.replay.limit_turn import LimitTurn
from web.replay.sharing import find_sharing, is_joinable
from web.request import limit_headers
from web.request.body import RequestBody
from web.request.pending import PendingRequest, RequestServices
from web.request.reply_frames import ReplyFrames
from web.request_context import current_request
from web.services import WebServices

#: Replies with audio whatever `stream` says: comments, as in a stream of events, would spoil it.
AUDIO_ENDPOINT = "audio/speech"
#: Endpoints whose streams report usage on request.
ENDPOINTS_WITH_USAGE = ("chat/completions", "completions")
#: Request headers passed to the upstream, besides content-type, and their WSGI names (PEP 3333).
FORWARDED_HEADERS = {
    name: f"HTTP_{name.upper().replace('-', '_')}"
    for name in ("accept", "accept-language", "idempotency-key", "openai-beta")
}
#: Whether an answer was there already (`hit`), is that of a running request (`joined`), or neither (`miss`).
CACHE_HEADER = "x-farm-cache"
#: Headers that say how a request may share its answer, by their WSGI names.
CACHE_CONTROL_HEADER = "HTTP_CACHE_CONTROL"
#: Characters of a header that is passed on: it is kept in the job.
MAX_HEADER_LENGTH = 1024


def admit_body(
    web_services: WebServices,
    endpoint: str,
    key: ApiKey,
    body: RequestBody,
    find_query: Callable[[PoolSettings], str],
) -> PendingRequest:
    """Enqueues the current request in a pool that serves its model. Raises ApiError.

    `find_query` returns what the upstream of a pool gets of the query.
    """
    _, context = current_request()
    pool = select_pool(web_services, context, key, body)
    return submit_body(web_services, web_services.request_services, pool, endpoint, key, body, find_query(pool))


def select_pool(web_services: WebServices, context: Any, key: ApiKey, body: RequestBody) -> PoolSettings:
    """Raises ApiError."""
    context.model = body.model
    pool = web_services.pool_selector.select(body.model, key)
    context.pool = pool.configured_name
    retry_for(lambda: web_services.availability.check(pool.name))
    return pool


def admit_shared(
    web_services: WebServices,
    endpoint: str,
    key: ApiKey,
    body: RequestBody,
    find_query: Callable[[PoolSettings], str],
) -> ReplyFrames:
    """As `admit_body`; the answer may be one that is shared with other requests."""
    request, context = current_request()
    pool = select_pool(web_services, context, key, body)
    joins = is_joinable(key, pool, body)
    pending_request, data = build_pending(
        web_services,
        web_services.request_services,
        pool,
        endpoint,
        key,
        body,
        find_query(pool),
        reveals_usage=joins,
    )
    idempotency_key = request.environ.get(IDEMPOTENCY_HEADER, "")
    sharing = None
    if joins or idempotency_key:
        sharing = find_sharing(
            endpoint,
            key,
            pool,
            body,
            pending_request.request,
            idempotency_key=idempotency_key,
            cache_control=request.environ.get(CACHE_CONTROL_HEADER, ""),
        )
    if sharing is None:
        return submit(web_services, context, pending_request, data)
    caller_socket, pending_request.caller_socket = pending_request.caller_socket, None
    joined = web_services.runs.open(
        Caller(pending_request, sharing, lambda: pending_request.submit(data), caller_socket)
    )
    context.pop("caller", None)
    with closing_on_error(joined.follower):
        headers = (
            build_turn_headers(joined.turn) if joined.turn else build_admission_headers(web_services, pending_request)
        )
    context.reply_headers = {**headers, CACHE_HEADER: joined.outcome}
    return joined.follower


def build_turn_headers(turn: LimitTurn) -> dict[str, str]:
    """Headers for a request that is not run."""
    headers = limit_headers.build_request_headers(turn.key, turn.usage)
    if not turn.is_counted:
        headers |= build_queue_headers(turn.ahead, round(1000 * turn.seconds_left))
    return headers


def build_queue_headers(ahead: int, eta_ms: int) -> dict[str, str]:
    return {"x-queue-position": str(ahead + 1), "x-queue-eta-ms": str(eta_ms)}


def submit_body(
    web_services: WebServices,
    request_services: RequestServices,
    pool: PoolSettings,
    endpoint: str,
    key: ApiKey,
    body: RequestBody,
    query: str = "",
) -> PendingRequest:
    """Enqueues the current request by these services, for this pool. Raises ApiError."""
    _, context = current_request()
    return submit(
        web_services, context, *build_pending(web_services, request_services, pool, endpoint, key, body, query)
    )


def build_pending(
    web_services: WebServices,
    request_services: RequestServices,
    pool: PoolSettings,
    endpoint: str,
    key: ApiKey,
    body: RequestBody,
    query: str = "",
    *,
    reveals_usage: bool = False,
) -> tuple[PendingRequest, bytes | LargeBody]:
    """The current request for this pool, to be submitted, and what the upstream gets. Raises ApiError.

    `reveals_usage`: see RelayRequest.
    """
    upstream_model = pool.model_map.get(body.model, body.model)
    upstream_body = body.with_model(upstream_model)
    hides_usage = pool.count_usage and endpoint in ENDPOINTS_WITH_USAGE and body.lacks_usage
    request, context = current_request()
    relay_request = build_relay_request(
        web_services,
        request,
        context,
        pool.name,
        key,
        content_type=body.content_type,
        query=query,
        stream=body.stream and endpoint != AUDIO_ENDPOINT,
        model=body.model,
        band="batch" if body.is_flexible else key.band,
        hides_usage=hides_usage,
        reveals_usage=reveals_usage and hides_usage,
    )
    tokens = estimate_tokens(body.text_bytes, body.max_tokens, body.choices, body.media)
    data = (upstream_body.with_usage() if hides_usage else upstream_body).content
    caller_socket = request.environ.get("gunicorn.socket")
    return PendingRequest(request_services, relay_request, key, caller_socket, tokens, upstream_model), data


def build_relay_request(
    web_services: WebServices,
    request: Request,
    context: Any,
    pool: str,
    key: ApiKey,
    *,
    content_type: str,
    query: str = "",
    **fields: Any,
) -> RelayRequest:
    """Builds the relay request for an HTTP request; `query` is what the upstream gets of its query."""
    now = clock.now()
    environ = request.environ
    headers = {name: environ[key] for name, key in FORWARDED_HEADERS.items() if key in environ}
    headers["content-type"] = content_type
    headers = {name: value for name, value in headers.items() if value.isascii() and value.isprintable()}
    if too_long := next((name for name, value in headers.items() if len(value) > MAX_HEADER_LENGTH), None):
        raise ApiError(431, "unreadable_request", f"the header {too_long} is too long")
    return RelayRequest(
        id=context.request_id,
        pool=pool,
        path=f"{context.endpoint}?{query}" if query else context.endpoint,
        headers=headers,
        front=web_services.hub.front_id,
        channel=web_services.hub.channel(context.request_id),
        enqueued_at=now,
        deadline=now + web_services.pool_selector.total_timeout(pool),
        key=key.id,
        **fields,
    )


def submit(
    web_services: WebServices, context: Any, pending_request: PendingRequest, body: bytes | LargeBody
) -> PendingRequest:
    """Enqueues a request, and tells its caller where it is in the pool's queue. Raises ApiError."""
    pending_request.submit(body)
    context.pop("caller", None)
    with closing_on_error(pending_request):
        context.reply_headers = build_admission_headers(web_services, pending_request)
    return pending_request


def build_admission_headers(web_services: WebServices, pending_request: PendingRequest) -> dict[str, str]:
    """Headers for a request that has been enqueued."""
    admission, overload = pending_request.admission, web_services.request_services.overload
    eta_ms = overload.eta_ms(pending_request.request.pool, admission.ahead, pending_request.rest)
    return {
        **limit_headers.build_headers(pending_request.key, admission.limit_usage),
        **build_queue_headers(admission.ahead, eta_ms),
    }


@contextmanager
def closing_on_error(reply: ReplyFrames) -> Iterator[None]:
    try:
        yield
    except BaseException:
        reply.close()
        raise
