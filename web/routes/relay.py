"""The relay routes: a request of OpenAI's API becomes a job, and the frames of its reply become the answer."""

import time
from typing import Any

from flask import Blueprint, Response

from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import reservation
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_for
from web.access.private_callers import POOL_HEADER
from web.request import limit_headers
from web.request.body import read_body
from web.request.pending import Pending
from web.request.rendering import answer
from web.request_context import present
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
    retry_for(lambda: farm.usable.check(pool.name))
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
    return retry_for(lambda: farm.authenticator.caller(presented, address, pool))


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
