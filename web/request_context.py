"""The current request and its `g`, looked up once; Flask's proxies look them up again at every attribute access."""

from typing import Any

from flask import Request
from flask.globals import app_ctx, request_ctx


def current_request() -> tuple[Request, Any]:
    return request_ctx.request, app_ctx.g
