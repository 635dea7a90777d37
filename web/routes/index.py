"""Says what this is and where its endpoints are, to whoever opens the base URL."""

from typing import Any

from flask import Blueprint

from web.routes.relay import ENDPOINTS

blueprint = Blueprint("index", __name__)


@blueprint.get("/")
@blueprint.get("/v1")
def index() -> dict[str, Any]:
    return {
        "object": "api",
        "name": "token farm",
        "description": "An OpenAI-compatible API whose base URL ends in /v1. Send your API key as a Bearer token.",
        "base_url": "/v1",
        "endpoints": ["GET /v1/models", *(f"POST /v1/{endpoint}" for endpoint in ENDPOINTS)],
        "health": ["/healthz", "/readyz"],
    }
