"""Admits a relay request whose body has been read: selects its pool, and enqueues it."""

from collections.abc import Callable
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
from web.request import limit_headers
from web.request.body import RequestBody
from web.request.pending import PendingRequest, RequestServices
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
    context.model = body.model
    pool = web_services.pool_selector.select(body.model, key)
    context.pool = pool.configured_name
    retry_for(lambda: web_services.availability.check(pool.name))
    return submit_body(web_services, web_services.request_services, pool, endpoint, key, body, find_query(pool))


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
    )
    tokens = estimate_tokens(body.text_bytes, body.max_tokens, body.choices, body.media)
    data = (upstream_body.with_usage() if hides_usage else upstream_body).content
    caller_socket = request.environ.get("gunicorn.socket")
    pending_request = PendingRequest(request_services, relay_request, key, caller_socket, tokens, upstream_model)
    return submit(web_services, context, pending_request, data)


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
    try:
        admission, overload = pending_request.admission, web_services.request_services.overload
        context.reply_headers = {
            **limit_headers.build_headers(pending_request.key, admission.limit_usage),
            "x-queue-position": str(admission.ahead + 1),
            "x-queue-eta-ms": str(overload.eta_ms(pending_request.request.pool, admission.ahead, pending_request.rest)),
        }
    except BaseException:
        pending_request.close()
        raise
    return pending_request
