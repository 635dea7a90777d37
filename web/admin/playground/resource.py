"""Admin API: the playground, with which operators ask a model as callers do and see what the farm does."""

import json
from dataclasses import replace

from flask import Response

from shared import clock, names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.console_key import ensure_console_key
from shared.api_keys.limits import LimitReached
from shared.errors import ApiError
from web.access.authenticator import check_key
from web.admin.api import router
from web.admin.credentials import get_or_404, list_configured_pools
from web.admin.playground.events import PlaygroundReply
from web.admin.playground.progress import Progress
from web.admin.playground.schemas import Admitted, PlaygroundRequest
from web.admin.telemetry.queue import open_view
from web.admission import admit_body, submit_body
from web.request import limit_headers
from web.request.body import RequestBody, parse_json
from web.request.capacity.pool_selection import can_serve, model_not_found_error
from web.request.direct_queue import DirectQueue
from web.request.pending import PendingRequest
from web.request.rendering import EVENT_STREAM, STREAM_HEADERS
from web.request_context import current_request
from web.services import services

ENDPOINT = "chat/completions"


@router.route("POST", "/playground", body=PlaygroundRequest, media=(EVENT_STREAM,), errors=(404, 409, 429, 431, 502))
def ask(body: PlaygroundRequest) -> Response:
    """Ask a model with the built-in API key `console`, and watch.

    The reply is a stream of server-sent events: `admitted`, `waiting` every second with the position in the queue,
    `started` with the first byte, `piece` for what comes, `ended` with what the request log says. Closing the
    connection cancels the request. To one `credential` it is sent past the queue, in whatever state that is, and is not
    retried.
    """
    _, context = current_request()
    key = find_key()
    context.endpoint, context.caller = f"/{ENDPOINT}", key.id
    content = build_body(body)
    relay_body = parse_json(content, "application/json", "")
    direct_queue: DirectQueue | None = None
    if body.credential:
        pending_request, direct_queue = send_to_credential(key, body, relay_body)
    else:
        pending_request = admit_body(services(), ENDPOINT, restrict(key, body.pool), relay_body, lambda _: "")
    admitted = Admitted(
        request=pending_request.request.id,
        pool=names.configured_pool(pending_request.request.pool),
        credential=body.credential,
        body=content.decode(),
    )
    progress = Progress(services().redis, open_view(), pending_request, body.credential)
    reply = PlaygroundReply(
        pending_request, progress, admitted, direct_queue.is_lost if direct_queue else lambda: False
    )
    response = Response(reply.iter_events(), content_type=EVENT_STREAM, headers=STREAM_HEADERS)
    response.call_on_close(pending_request.close)
    return response


def find_key() -> ApiKey:
    """The console's own key. Raises ApiError 409 when an operator has disabled it."""
    request, _ = current_request()
    key = ensure_console_key(services().redis)
    if not key.enabled or key.is_expired:
        raise ApiError(409, "conflict", "the API key `console`, which the playground uses, is disabled or has expired")
    check_key(key, services().trusted_proxies.find_caller_address(request))
    return key


def restrict(key: ApiKey, pool: str) -> ApiKey:
    """The key for requests to this pool only, '' for all. Raises ApiError 404."""
    if not pool:
        return key
    if pool not in list_configured_pools() or not key.allows_pool(pool):
        raise ApiError(404, "not_found", f"no pool {pool!r} is open to the API key `console`", param="pool")
    return key.model_copy(update={"pools": (pool,)})


def build_body(body: PlaygroundRequest) -> bytes:
    """The request as a client sends it."""
    system = [{"role": "system", "content": body.system}] if body.system else []
    fields = {"model": body.model, "messages": [*system, {"role": "user", "content": body.user}]}
    optional = {"temperature": body.temperature, "max_tokens": body.max_tokens, "stream": body.stream or None}
    given = {name: value for name, value in optional.items() if value is not None}
    return json.dumps({**fields, **given}, ensure_ascii=False).encode()


def send_to_credential(
    key: ApiKey, body: PlaygroundRequest, relay_body: RequestBody
) -> tuple[PendingRequest, DirectQueue]:
    """Raises ApiError 404 for an unknown credential or model, 429 for a rate limit of the key, 503 without workers."""
    web_services, (_, context) = services(), current_request()
    record = get_or_404(body.credential)
    pool = web_services.settings.pool(record.pool)
    context.pool, context.model = pool.configured_name, body.model
    restrict(key, pool.configured_name)
    if not key.allows_model(body.model) or not can_serve(pool, body.model):
        raise model_not_found_error(body.model)
    try:
        web_services.request_services.queue.count_request(key, clock.now())
    except LimitReached as error:
        raise limit_headers.limit_reached_error(key, error) from None
    queue = DirectQueue(web_services.redis, record.id, web_services.hub.ack_publisher.finish)
    request_services = replace(web_services.request_services, queue=queue, heeds_rest=False, queued={})
    return submit_body(web_services, request_services, pool, ENDPOINT, key, relay_body), queue
