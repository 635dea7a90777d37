"""The batch endpoints of OpenAI's API."""

from typing import Any

from flask import Blueprint, g

from shared.api_keys.api_key import ApiKey
from shared.batches.batch import Batch
from shared.errors import ApiError, Conflict, NotFound
from shared.json_object import InvalidObject, parse_object
from shared.redis_connection.retry import retry_for
from web.batches.creation import create_batch as create
from web.replay.creation_request import CreationRequest
from web.replay.identity import digest, digest_json
from web.request.body_memory import Reservation
from web.request.body_reader import read_whole
from web.request_context import current_request
from web.routes.listing import build_page, read_limit
from web.routes.relay import authenticate
from web.services import services

blueprint = Blueprint("batches", __name__)
#: Batches in a list, at most and by default.
MAX_LIMIT, DEFAULT_LIMIT = 100, 20


@blueprint.post("/v1/batches")
def create_batch() -> dict[str, Any]:
    web_services, key = services(), admit_caller()
    request, context = current_request()
    creation = CreationRequest(web_services.redis, request.environ, key)
    with Reservation(web_services.body_memory, key.id) as reservation:
        body = read_whole(request, reservation)
    try:
        fields = parse_object(body, ())
    except InvalidObject as error:
        raise ApiError(400, "invalid_json", str(error)) from None
    fingerprint = digest(b"/batches", digest_json(body))
    answer = creation.create(fingerprint, lambda once: create(web_services.batches, key, fields, once).describe())
    context.reply_headers = creation.headers
    web_services.batch_runner.wake()
    return answer


@blueprint.get("/v1/batches")
def list_batches() -> dict[str, Any]:
    key = admit_caller()
    request, _ = current_request()
    after, limit = request.args.get("after", ""), read_limit(MAX_LIMIT, DEFAULT_LIMIT)
    try:
        found = retry_for(lambda: services().batches.store.list_newest(key.id, after, limit + 1))
    except NotFound:
        raise not_found_error(after) from None
    return build_page(found, limit)


@blueprint.get("/v1/batches/<batch_id>")
def retrieve_batch(batch_id: str) -> dict[str, Any]:
    return find_batch(admit_caller(), batch_id).describe()


@blueprint.post("/v1/batches/<batch_id>/cancel")
def cancel_batch(batch_id: str) -> dict[str, Any]:
    key = admit_caller()
    try:
        return retry_for(lambda: services().batches.store.cancel(batch_id, key.id)).describe()
    except NotFound:
        raise not_found_error(batch_id) from None
    except Conflict as error:
        raise ApiError(409, "batch_not_cancellable", f"{error}.") from None


def admit_caller() -> ApiKey:
    """The caller's API key. Takes nothing of its limits: a batch may use them up. Raises ApiError 401, 403."""
    g.endpoint = "/batches"
    return authenticate(services())


def find_batch(key: ApiKey, batch_id: str) -> Batch:
    """Raises ApiError 404, also for another key's batch."""
    try:
        return retry_for(lambda: services().batches.store.get(batch_id, key.id))
    except NotFound:
        raise not_found_error(batch_id) from None


def not_found_error(batch_id: str) -> ApiError:
    return ApiError(404, "batch_not_found", f"No batch found with id '{batch_id[:100]}'.", param="batch_id")
