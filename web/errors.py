"""Renders every error in OpenAI's shape. Only unexpected errors are logged with a traceback, which is never sent."""

import logging

from flask import Flask, Response, g, request
from flask.globals import request_ctx
from redis.exceptions import RedisError, ResponseError
from werkzeug.exceptions import HTTPException

from shared.errors import ApiError
from shared.files.part_store import FileStoreDown, FileStoreFull
from web.services import services

log = logging.getLogger("farm.web")
HTTP_ERROR_CODES = {
    400: "bad_request",
    404: "unknown_url",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
}


def register_handlers(app: Flask) -> None:
    app.register_error_handler(ApiError, handle_api_error)
    app.register_error_handler(HTTPException, handle_http_error)
    app.register_error_handler(RedisError, handle_redis_error)
    app.register_error_handler(FileStoreDown, handle_file_store_error)
    app.register_error_handler(Exception, handle_unexpected_error)


def handle_api_error(error: ApiError) -> Response:
    """Renders an error; one raised before the caller's request was enqueued is written to the request log."""
    if "caller" in g:
        services().log_buffer.record_refused(g.caller, error)
    headers = {**error.headers, "content-type": "application/json"}
    return Response(error.body(), error.status, headers)


def handle_http_error(error: HTTPException) -> Response:
    if error.response is not None and isinstance(error.response, Response):
        return error.response
    status = error.code or 500
    if status == 405 and request.path.startswith("/admin/api/") and lacks_id(request.path):
        status = 404
    message = {
        404: f"Unknown request URL: {request.method} {request.path[:200]}. Please check the URL for typos.",
        413: "the request body is too large",
    }.get(status, error.description or "the request can't be served")
    response = handle_api_error(ApiError(status, HTTP_ERROR_CODES.get(status, "http_error"), message))
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def lacks_id(path: str) -> bool:
    """Whether an object's id is missing: an empty one looks like the list of all, and clients drop one that is `.`."""
    collection, _, action = path.rpartition("/")
    adapter = request_ctx.url_adapter
    return not action or (adapter is not None and adapter.test(f"{collection}/-/{action}", request.method))


def handle_redis_error(error: RedisError) -> Response:
    """Renders a 503 when Redis is unreachable or refuses commands (out of memory, read only, …)."""
    is_refusal = isinstance(error, ResponseError)
    action = "redis_refused" if is_refusal else "redis_lost"
    log.error("Redis: %s", error, extra={"action": action, "request_id": g.get("request_id")})
    message = "the farm's Redis refuses commands" if is_refusal else "the farm's Redis does not respond"
    return handle_api_error(ApiError(503, "store_unavailable", message, "server_error"))


def handle_file_store_error(error: FileStoreDown) -> Response:
    """Renders a 507 when there is no room for files, which a retry would find again; a 503 when the store is away."""
    log.error("files: %s", error, extra={"action": "file_store_failed", "request_id": g.get("request_id")})
    if isinstance(error, FileStoreFull):
        message, headers = "the farm has no room left for files", {"x-should-retry": "false"}
        return handle_api_error(ApiError(507, "insufficient_storage", message, "server_error", headers=headers))
    return handle_api_error(
        ApiError(503, "file_store_unavailable", "the farm's store of files does not respond", "server_error")
    )


def handle_unexpected_error(error: Exception) -> Response:
    log.exception("a request failed", extra={"action": "request_failed", "request_id": g.get("request_id")})
    return handle_api_error(ApiError(500, "internal_error", "the farm failed to handle this request", "server_error"))
