"""Server-sent events of the front's own: the comment that keeps a stream alive, and the error that ends one; pure."""

from shared.errors import ApiError

COMMENT = b": keep-alive\n\n"


def error_event(error: ApiError) -> bytes:
    """The event that ends a stream which can't be completed; OpenAI's SDKs raise on it."""
    return b"data: " + error.body() + b"\n\n"
