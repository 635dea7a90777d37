"""Every error as an answer in OpenAI's shape; a traceback is logged for a mistake of ours only, and never sent."""

import logging

from flask import Flask, Response, g, request
from redis.exceptions import RedisError, ResponseError
from werkzeug.exceptions import HTTPException

from shared.errors import ApiError
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
    """Registers the handlers."""
    app.register_error_handler(ApiError, handle_api_error)
    app.register_error_handler(HTTPException, handle_http_error)
    app.register_error_handler(RedisError, handle_redis_error)
    app.register_error_handler(Exception, handle_unexpected_error)


def handle_api_error(error: ApiError) -> Response:
    """An error of ours; one that ended a caller's request before it was on its way is kept in the request log."""
    if "caller" in g:
        services().log_buffer.record_refused(g.caller, error)
    headers = {**error.headers, "content-type": "application/json"}
    return Response(error.body(), error.status, headers)


def handle_http_error(error: HTTPException) -> Response:
    """An error of the web framework: unknown path, wrong method, a body that is too large."""
    if error.response is not None and isinstance(error.response, Response):
        return error.response
    status = error.code or 500
    message = {
        404: f"Unknown request URL: {request.method} {request.path[:200]}. Please check the URL for typos.",
        413: "the body of the request is larger than the farm takes",
    }.get(status, error.description or "the request can't be served")
    response = handle_api_error(ApiError(status, HTTP_ERROR_CODES.get(status, "http_error"), message))
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def handle_redis_error(error: RedisError) -> Response:
    """Redis does not answer, or refuses: it is out of memory, read only, …: an alarm for the operator."""
    is_refusal = isinstance(error, ResponseError)
    action = "redis_refused" if is_refusal else "redis_lost"
    log.error("Redis: %s", error, extra={"action": action, "request_id": g.get("request_id")})
    message = "the farm's Redis takes nothing now" if is_refusal else "the farm's Redis does not answer"
    return handle_api_error(ApiError(503, "store_unavailable", message, "server_error"))


def handle_unexpected_error(error: Exception) -> Response:
    """A mistake of ours."""
    log.exception("a request failed", extra={"action": "request_failed", "request_id": g.get("request_id")})
    return handle_api_error(ApiError(500, "internal_error", "the farm made a mistake", "server_error"))
