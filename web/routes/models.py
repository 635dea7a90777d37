"""The model list: the configured names, else what the upstream says, asked by a worker and kept for a while."""

import json
from typing import Any

from flask import Blueprint, g

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.errors import ApiError
from shared.settings.schema import PoolSettings
from web.request.pool_selection import model_not_found
from web.request.rendering import NO_TIMEOUT
from web.routes.relay import authenticate, build_relay_request, submit
from web.services import WebServices, services

blueprint = Blueprint("models", __name__)
#: Seconds that the upstream's list is kept.
LIST_TTL_SECONDS = 300
#: Who asks for the list: no caller, so that it counts for nobody's limits.
FARM_KEY = ApiKey(id="-", hint="", created_at=0)


@blueprint.get("/v1/models")
@blueprint.get("/models")
def list_models() -> dict[str, Any]:
    """Every model of every pool."""
    return {"object": "list", "data": known_models()}


@blueprint.get("/v1/models/<path:name>")
@blueprint.get("/models/<path:name>")
def get_model(name: str) -> dict[str, Any]:
    """One model. Raises ApiError 404."""
    for model in known_models():
        if model.get("id") == name:
            return model
    raise model_not_found(name)


def known_models() -> list[dict[str, Any]]:
    """The models of all pools that the caller may use, each name once."""
    farm = services()
    g.endpoint = "/models"
    key = authenticate(farm)
    found: dict[str, dict[str, Any]] = {}
    failure: ApiError | None = None
    for pool in farm.pool_selector.list_open_to(key):
        g.pool = pool.configured_name
        try:
            models = list_configured(pool) or list_upstream(farm, pool)
        except ApiError as error:
            failure = error
            continue
        for model in models:
            if key.allows_model(name := str(model.get("id"))):
                found.setdefault(name, model)
    if failure and not found:
        raise failure
    return list(found.values())


def list_configured(pool: PoolSettings) -> list[dict[str, Any]]:
    """The configured names of a pool, those that are mapped included."""
    names = dict.fromkeys((*pool.models, *pool.model_map)) if pool.models else {}
    return [{"id": name, "object": "model", "created": 0, "owned_by": pool.configured_name} for name in names]


def list_upstream(farm: WebServices, pool: PoolSettings) -> list[dict[str, Any]]:
    """The upstream's own list. Raises ApiError when it can't be had."""
    stored = farm.redis.get(keys.models(pool.name))
    if stored is None:
        stored = fetch_list(farm, pool)
        farm.redis.set(keys.models(pool.name), stored, ex=LIST_TTL_SECONDS)
    data = json.loads(stored).get("data")
    return [model for model in data if isinstance(model, dict)] if isinstance(data, list) else []


def fetch_list(farm: WebServices, pool: PoolSettings) -> bytes:
    """Asks the upstream by a worker, because only workers have access tokens."""
    farm.availability.check(pool.name)
    pending = submit(farm, build_relay_request(farm, pool.name, FARM_KEY, "/models"), b"", FARM_KEY)
    try:
        head, frames = pending.wait_for_head(NO_TIMEOUT)
        body = b"".join(pending.iter_body(frames, NO_TIMEOUT))
    finally:
        pending.close()
    if head.status != 200 or not is_object(body):
        raise ApiError(502, "upstream_error", "the upstream's model list can't be had", "upstream_error")
    return body


def is_object(body: bytes) -> bool:
    """Whether that is a JSON object."""
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False
