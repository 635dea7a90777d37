"""The relay routes: a request to OpenAI's API becomes a job, and the frames of its reply become the HTTP response."""

from typing import Any

from flask import Blueprint, Request, Response

from shared.api_keys.api_key import ApiKey
from shared.redis_connection.retry import retry_for
from shared.settings.schema import PoolSettings
from web.access.passed_query import select_query
from web.access.presented_secrets import find_secrets
from web.access.private_callers import POOL_HEADER
from web.admission import admit_shared
from web.request.body import read_body
from web.request.body_memory import Reservation
from web.request.rendering import render_reply
from web.request.reply_frames import ReplyFrames
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


def relay(endpoint: str) -> Response:
    web_services = services()
    request, context = current_request()
    context.endpoint = f"/{endpoint}"
    reply = admit(web_services, request, context, endpoint)
    return render_reply(reply, web_services.settings.keepalive)


def admit(web_services: WebServices, request: Request, context: Any, endpoint: str) -> ReplyFrames:
    """Reads, checks and enqueues a request, unless its answer is there or on its way. Raises ApiError.

    While the caller waits for the reply, the front keeps no copy of the body.
    """
    key = authenticate(web_services)
    context.caller = key.id
    with Reservation(web_services.body_memory, key.id) as reservation:
        body = read_body(request, reservation, find_path_model(request))
        return admit_shared(web_services, endpoint, key, body, lambda pool: build_query(request, pool))


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
