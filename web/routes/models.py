"""The model list: the configured names, or the upstream's list."""

from typing import Any

import gevent
from flask import Blueprint, g

from shared.errors import ApiError
from web.model_lists import load_models
from web.request.capacity.pool_selection import model_not_found_error
from web.routes.relay import authenticate
from web.services import services

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
@blueprint.get("/models")
def list_models() -> dict[str, Any]:
    return {"object": "list", "data": collect_models()}


@blueprint.get("/v1/models/<path:name>")
@blueprint.get("/models/<path:name>")
def get_model(name: str) -> dict[str, Any]:
    """Raises ApiError 404."""
    for model in collect_models():
        if model.get("id") == name:
            return model
    raise model_not_found_error(name)


def collect_models() -> list[dict[str, Any]]:
    """Returns the models of all pools open to the caller, each name once."""
    web_services = services()
    g.endpoint = "/models"
    key = authenticate(web_services)
    pools = web_services.pool_selector.list_open_to(key)
    models_by_name: dict[str, dict[str, Any]] = {}
    last_error: ApiError | None = None
    # At the same time: each may have to be waited for.
    for pool, load in [(pool, gevent.spawn(load_models, web_services.model_lists, pool)) for pool in pools]:
        g.pool = pool.configured_name
        models = load.get()
        if isinstance(models, ApiError):
            last_error = models
            continue
        for model in models:
            if key.allows_model(name := str(model.get("id"))):
                models_by_name.setdefault(name, model)
    if last_error and not models_by_name:
        raise last_error
    return list(models_by_name.values())
