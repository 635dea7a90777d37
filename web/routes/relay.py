"""The relay routes: a request of OpenAI's API becomes a job, and the frames of its reply become the answer."""

import time
from typing import Any

from flask import Blueprint, Response

from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import estimate_tokens
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_for
from web.access.private_callers import POOL_HEADER
from web.request import limit_headers
from web.request.body import read_body
from web.request.pending import PendingRequest
from web.request.rendering import render_reply
from web.request_context import current_request
from web.services import WebServices, services

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
ENDPOINTS_WITH_USAGE = ("chat/completions", "completions")
#: Headers of the caller that reach the upstream, besides content-type, and what WSGI calls them (PEP 3333).
PASSED_HEADERS = {
    name: f"HTTP_{name.upper().replace('-', '_')}"
    for name in ("accept", "accept-language", "idempotency-key", "openai-beta")
}


def relay(endpoint: str) -> Response:
    """Relays one request to that path below the upstream's base URL."""
    farm = services()
    request, kept = current_request()
    kept.endpoint = f"/{endpoint}"
    key = authenticate(farm)
    kept.caller = key.id
    asked = read_body(request)
    kept.model = asked.model
    pool = farm.pool_selector.select(asked.model, key)
    kept.pool = pool.configured_name
    retry_for(lambda: farm.availability.check(pool.name))
    sent = asked.with_model(pool.model_map.get(asked.model, asked.model))
    hides_usage = pool.count_usage and endpoint in ENDPOINTS_WITH_USAGE and asked.lacks_usage
    message = build_relay_request(
        farm,
        pool.name,
        key,
        stream=asked.stream,
        model=asked.model,
        band="batch" if asked.is_flexible else key.band,
        hides_usage=hides_usage,
    )
    tokens = estimate_tokens(len(asked.body), asked.max_tokens, asked.choices)
    body = (sent.with_usage() if hides_usage else sent).body
    return render_reply(submit(farm, message, body, key, tokens), farm.settings.keepalive)


def authenticate(farm: WebServices) -> ApiKey:
    """The key of the present request. Raises ApiError."""
    request, _ = current_request()
    presented, address = request.headers.get("authorization", ""), farm.proxies.find_client(request)
    pool = request.headers.get(POOL_HEADER, "")
    return retry_for(lambda: farm.authenticator.authenticate(presented, address, pool))


for endpoint in ENDPOINTS:
    for prefix in ("/v1/", "/"):
        blueprint.add_url_rule(prefix + endpoint, view_func=relay, methods=["POST"], defaults={"endpoint": endpoint})


def build_relay_request(farm: WebServices, pool: str, key: ApiKey, path: str = "", **more: Any) -> RelayRequest:
    """The present request, on its way to an upstream; `path` when that is another one there."""
    now = time.time()
    request, kept = current_request()
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
        deadline=now + farm.pool_selector.total_timeout(pool),
        method=request.method,
        key=key.id,
        **more,
    )


def submit(farm: WebServices, message: RelayRequest, body: bytes, key: ApiKey, tokens: int = 0) -> PendingRequest:
    """Enqueues a request, with so many tokens reserved for it. Raises ApiError."""
    request, kept = current_request()
    client = getattr(request.environ.get("gunicorn.socket"), "raw", None)
    pending = PendingRequest(farm.requests, message, key, client, tokens)
    pending.submit(body)
    kept.pop("caller", None)
    admitted = pending.admission
    kept.answer_headers = {
        **limit_headers.build_headers(key, admitted.limit_usage),
        "x-queue-position": str(admitted.ahead + 1),
        "x-queue-eta-ms": str(farm.drain_rate.eta_ms(message.pool, admitted.ahead)),
    }
    return pending
