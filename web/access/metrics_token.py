"""Protects the pages for monitoring with FARM_METRICS_TOKEN, if it is set."""

import hmac

from flask import Request

from shared.errors import ApiError


def check_metrics_token(request: Request, configured: str) -> None:
    """Raises ApiError 401 unless the request has the configured token as Bearer; '' admits every request."""
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    is_bearer = scheme.lower() == "bearer"
    if configured and not (is_bearer and hmac.compare_digest(presented.strip().encode(), configured.encode())):
        headers = {"www-authenticate": "Bearer"}
        raise ApiError(401, "invalid_metrics_token", "the token for monitoring is missing or wrong", headers=headers)
