"""The relay routes: a request to OpenAI's API becomes a job, and the frames of its reply become the HTTP response."""

from typing import Any

from flask import Blueprint, Request, Response

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import estimate_tokens
from shared.errors import ApiError
from shared.protocol.large_body import LargeBody
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_for
from shared.settings.schema import PoolSettings
from web.access.passed_query import select_query
from web.access.presented_secrets import find_secrets
from web.access.private_callers import POOL_HEADER
from web.request import limit_headers
from web.request.body import read_body
from web.request.body_memory import Reservation
from web.request.pending import PendingRequest
from web.request.rendering import render_reply
from web.request_context import current_request
from web.server.paths import PATH_MODEL
from web.services import WebServices, services

blueprint = Blueprint("relay", __name__)

#: Paths below /v1 (and below /) that are relayed.
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


def relay(endpoint: str) -> Response:
    web_services = services()
    _, context = current_request()
    context.endpoint = f"/{endpoint}"
    pending_request = admit(web_services, endpoint)
    return render_reply(pending_request, web_services.settings.keepalive)


def admit(web_services: WebServices, endpoint: str) -> PendingRequest:
    """Reads, checks and enqueues the current request. Raises ApiError.

    While the caller waits for the reply, the front keeps no copy of the body.
    """
    request, context = current_request()
    key = authenticate(web_services)
    context.caller = key.id
    with Reservation(web_services.body_memory, key.id) as reservation:
        body = read_body(request, reservation, find_path_model(request))
        context.model = body.model
        pool = web_services.pool_selector.select(body.model, key)
        context.pool = pool.configured_name
        retry_for(lambda: web_services.availability.check(pool.name))
        upstream_model = pool.model_map.get(body.model, body.model)
        upstream_body = body.with_model(upstream_model)
        hides_usage = pool.count_usage and endpoint in ENDPOINTS_WITH_USAGE and body.lacks_usage
        relay_request = build_relay_request(
            web_services,
            pool.name,
            key,
            query=build_query(request, pool),
            stream=body.stream and endpoint != AUDIO_ENDPOINT,
            model=body.model,
            band="batch" if body.is_flexible else key.band,
            hides_usage=hides_usage,
        )
        tokens = estimate_tokens(body.text_bytes, body.max_tokens, body.choices, body.media)
        data = (upstream_body.with_usage() if hides_usage else upstream_body).content
        return submit(web_services, relay_request, data, key, tokens, upstream_model)


def authenticate(web_services: WebServices) -> ApiKey:
    """Raises ApiError."""
    request, _ = current_request()
    secrets = find_secrets(request)
    address = web_services.trusted_proxies.find_caller_address(request)
    pool = request.headers.get(POOL_HEADER, "")
    return retry_for(lambda: web_services.authenticator.authenticate(secrets, address, pool))


for endpoint in ENDPOINTS:
    for prefix in ("/v1/", "/"):
        blueprint.add_url_rule(prefix + endpoint, view_func=relay, methods=["POST"], defaults={"endpoint": endpoint})


def find_path_model(request: Request) -> str:
    """The model that the path names, '' for none."""
    return str(request.environ.get(PATH_MODEL, "")).encode("latin-1").decode(errors="replace")


def build_query(request: Request, pool: PoolSettings) -> str:
    """What the upstream gets of the query."""
    query = request.query_string
    return select_query(query, pool.passed_query, find_secrets(request)) if query else ""


def build_relay_request(
    web_services: WebServices, pool: str, key: ApiKey, *, query: str = "", **fields: Any
) -> RelayRequest:
    """Builds the relay request for the current HTTP request; `query` is what the upstream gets of its query."""
    now = clock.now()
    request, context = current_request()
    environ = request.environ
    headers = {name: environ[key] for name, key in FORWARDED_HEADERS.items() if key in environ}
    if request.method == "POST":
        headers["content-type"] = request.content_type or "application/json"
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
        method=request.method,
        key=key.id,
        **fields,
    )


def submit(
    web_services: WebServices,
    relay_request: RelayRequest,
    body: bytes | LargeBody,
    key: ApiKey,
    tokens: int = 0,
    upstream_model: str = "",
) -> PendingRequest:
    """Enqueues a relay request and reserves `tokens` for it; `upstream_model` is in its body. Raises ApiError."""
    request, context = current_request()
    caller_socket = request.environ.get("gunicorn.socket")
    pending_request = PendingRequest(
        web_services.request_services, relay_request, key, caller_socket, tokens, upstream_model
    )
    pending_request.submit(body)
    context.pop("caller", None)
    try:
        admission, overload = pending_request.admission, web_services.request_services.overload
        context.reply_headers = {
            **limit_headers.build_headers(key, admission.limit_usage),
            "x-queue-position": str(admission.ahead + 1),
            "x-queue-eta-ms": str(overload.eta_ms(relay_request.pool, admission.ahead, pending_request.rest)),
        }
    except BaseException:
        pending_request.close()
        raise
    return pending_request
