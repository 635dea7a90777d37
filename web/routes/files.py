"""The file endpoints of OpenAI's API: the input of batches, which callers upload, and their output."""

from typing import Any

from flask import Blueprint, Response, g

from shared.api_keys.api_key import ApiKey
from shared.errors import ApiError
from shared.files.file_record import FileRecord
from shared.files.file_store import FileNotFound
from shared.redis_connection.retry import retry_for
from web.files.download import send_content
from web.files.errors import file_not_found_error
from web.files.upload import take_upload
from web.replay.creation_request import CreationRequest
from web.request.body_memory import Reservation
from web.request_context import current_request
from web.routes.listing import build_page, read_limit
from web.routes.relay import authenticate
from web.server.request_input import MAX_BATCH_INPUT_BYTES
from web.services import services

blueprint = Blueprint("files", __name__)
#: Files in a list, at most and by default.
MAX_LIMIT = 10_000
ORDERS = ("asc", "desc")


@blueprint.post("/v1/files")
def create_file() -> dict[str, Any]:
    web_services, key = services(), admit_caller()
    request, context = current_request()
    creation = CreationRequest(web_services.redis, request.environ, key)
    max_bytes = min(web_services.settings.max_file, MAX_BATCH_INPUT_BYTES)
    with Reservation(web_services.file_memory, key.id) as reservation:
        answer = take_upload(request, web_services.files, key, reservation, max_bytes, creation)
    context.reply_headers = creation.headers
    return answer


@blueprint.get("/v1/files")
def list_files() -> dict[str, Any]:
    key = admit_caller()
    request, _ = current_request()
    after, purpose = request.args.get("after", ""), request.args.get("purpose", "")
    limit, order = read_limit(MAX_LIMIT, MAX_LIMIT), parse_order(request.args.get("order", ""))
    try:
        found = retry_for(lambda: services().files.list(key.id, after, limit + 1, order=order, purpose=purpose))
    except FileNotFound:
        raise file_not_found_error(after) from None
    return build_page(found, limit)


@blueprint.get("/v1/files/<file_id>")
def retrieve_file(file_id: str) -> dict[str, Any]:
    return find_file(admit_caller(), file_id).describe()


@blueprint.get("/v1/files/<file_id>/content")
def download_file(file_id: str) -> Response:
    record = find_file(admit_caller(), file_id)
    return send_content(current_request()[0], services().files, record)


@blueprint.delete("/v1/files/<file_id>")
def delete_file(file_id: str) -> dict[str, Any]:
    record = find_file(admit_caller(), file_id)
    if not services().files.delete(record):
        raise file_not_found_error(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def admit_caller() -> ApiKey:
    """The caller's API key. Takes nothing of its limits: a batch may use them up. Raises ApiError 401, 403."""
    g.endpoint = "/files"
    return authenticate(services())


def find_file(key: ApiKey, file_id: str) -> FileRecord:
    """Raises ApiError 404, also for another key's file."""
    try:
        return retry_for(lambda: services().files.get(key.id, file_id))
    except FileNotFound:
        raise file_not_found_error(file_id) from None


def parse_order(text: str) -> str:
    """Raises ApiError 400."""
    order = text or "desc"
    if order not in ORDERS:
        raise ApiError(400, "invalid_value", f"'order' must be one of {', '.join(ORDERS)}", param="order")
    return order
