"""The present request and its `g` themselves, looked up once; Flask's stand-ins look them up at every use of a name."""

from typing import Any

from flask import Request
from flask.globals import app_ctx, request_ctx


def current_request() -> tuple[Request, Any]:
    """The request that is being served, and what is kept for as long as it is."""
    return request_ctx.request, app_ctx.g
