"""The model list: the configured names, or the upstream's list, fetched by a worker and cached."""

import json
from typing import Any

from flask import Blueprint, g

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.errors import ApiError
from shared.settings.schema import PoolSettings
from web.request.pool_selection import model_not_found_error
from web.request.rendering import NO_TIMEOUT
from web.routes.relay import authenticate, build_relay_request, submit
from web.services import WebServices, services

blueprint = Blueprint("models", __name__)
#: Seconds that the upstream's list is cached.
LIST_TTL_SECONDS = 300
#: The key that model lists are fetched with: not a caller's, so that they count towards no limits.
FARM_KEY = ApiKey(id="-", hint="", created_at=0)


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
    models_by_name: dict[str, dict[str, Any]] = {}
    last_error: ApiError | None = None
    for pool in web_services.pool_selector.list_open_to(key):
        g.pool = pool.configured_name
        try:
            models = list_configured(pool) or list_from_upstream(web_services, pool)
        except ApiError as error:
            last_error = error
            continue
        for model in models:
            if key.allows_model(name := str(model.get("id"))):
                models_by_name.setdefault(name, model)
    if last_error and not models_by_name:
        raise last_error
    return list(models_by_name.values())


def list_configured(pool: PoolSettings) -> list[dict[str, Any]]:
    """Lists a pool's configured model names, including mapped ones."""
    names = dict.fromkeys((*pool.models, *pool.model_map)) if pool.models else {}
    return [{"id": name, "object": "model", "created": 0, "owned_by": pool.configured_name} for name in names]


def list_from_upstream(web_services: WebServices, pool: PoolSettings) -> list[dict[str, Any]]:
    """Raises ApiError when the list can't be fetched."""
    stored = web_services.redis.get(keys.models(pool.name))
    if stored is None:
        stored = fetch_upstream_list(web_services, pool)
        web_services.redis.set(keys.models(pool.name), stored, ex=LIST_TTL_SECONDS)
    data = json.loads(stored).get("data")
    return [model for model in data if isinstance(model, dict)] if isinstance(data, list) else []


def fetch_upstream_list(web_services: WebServices, pool: PoolSettings) -> bytes:
    """Fetches the list through a worker, because only workers have access tokens."""
    web_services.availability.check(pool.name)
    pending_request = submit(
        web_services, build_relay_request(web_services, pool.name, FARM_KEY, "/models"), b"", FARM_KEY
    )
    try:
        head, frames = pending_request.wait_for_head(NO_TIMEOUT)
        body = b"".join(pending_request.iter_body(frames, NO_TIMEOUT))
    finally:
        pending_request.close()
    if head.status != 200 or not is_json_object(body):
        raise ApiError(502, "upstream_error", "the upstream's model list can't be fetched", "upstream_error")
    return body


def is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False
