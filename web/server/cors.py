"""CORS for browser extensions (Fetch standard): any origin, no cookies, on errors and streams too."""

from flask import Request, Response

#: Reply headers that a page's script may read.
EXPOSED_HEADERS = (
    "x-request-id, x-queue-position, x-queue-eta-ms, x-queue-wait-ms, x-farm-attempts, x-farm-cache, "
    "openai-processing-ms, retry-after, retry-after-ms, x-should-retry, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
#: Seconds that a browser may cache a preflight response.
PREFLIGHT_MAX_AGE_SECONDS = "86400"
HEADERS = {"access-control-allow-origin": "*", "access-control-expose-headers": EXPOSED_HEADERS}


def build_preflight_response(request: Request) -> Response:
    """Builds the response to OPTIONS, which browsers send without the key."""
    requested_headers = request.headers.get("access-control-request-headers", "authorization, content-type")
    headers = {
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": requested_headers,
        "access-control-max-age": PREFLIGHT_MAX_AGE_SECONDS,
    }
    if request.headers.get("access-control-request-private-network") == "true":
        headers["access-control-allow-private-network"] = "true"
    return Response(status=204, headers=headers)
