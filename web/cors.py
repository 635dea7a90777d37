"""CORS for browser extensions (Fetch standard): any origin, no cookies; errors and streams have the headers too."""

from flask import Flask, Response, request

#: Headers of an answer that a page's script may read.
EXPOSED = (
    "x-request-id, x-queue-position, x-queue-eta-ms, x-queue-wait-ms, x-farm-attempts, openai-processing-ms, "
    "retry-after, retry-after-ms, x-should-retry, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
METHODS = "GET, POST, OPTIONS"
#: Seconds that a browser may remember a preflight's answer.
REMEMBERED = "86400"
#: The console has a login session, so no other site's page may reach it.
CLOSED = "/admin"


def install(app: Flask) -> None:
    """Answers preflights without a key and marks every other answer."""
    app.before_request(preflight)
    app.after_request(mark)


def preflight() -> Response | None:
    """An answer to OPTIONS, which browsers send without the key."""
    if request.method != "OPTIONS" or request.path.startswith(CLOSED):
        return None
    headers = {
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": request.headers.get(
            "access-control-request-headers", "authorization, content-type"
        ),
        "access-control-max-age": REMEMBERED,
    }
    if request.headers.get("access-control-request-private-network") == "true":
        headers["access-control-allow-private-network"] = "true"
    return Response(status=204, headers=headers)


def mark(response: Response) -> Response:
    """Lets the calling page read the answer."""
    if not request.path.startswith(CLOSED):
        response.headers["access-control-allow-origin"] = "*"
        response.headers["access-control-expose-headers"] = EXPOSED
    return response
