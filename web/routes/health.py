"""Health checks for load balancers, and /api/status for people and tools."""

import time
from typing import Any

from flask import Blueprint, request
from redis.exceptions import RedisError

from shared.files.store_health import read_health
from shared.observability.durability import read_durability
from shared.observability.pool_status import PoolStatus, read_pool_statuses
from shared.observability.refreshers import read_refreshers
from web.access.metrics_token import check_metrics_token
from web.services import services
from web.version import VERSION

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@blueprint.get("/readyz")
def readyz() -> tuple[dict[str, Any], int]:
    """200 when Redis responds and a worker is running, else 503 with the reasons; warnings change no status."""
    web_services = services()
    try:
        pools = read_pool_statuses(web_services.redis, [pool.name for pool in web_services.pool_selector])
        durability = read_durability(web_services.redis)
        refreshers = read_refreshers(web_services.redis)
        file_store = read_health(web_services.redis)
    except RedisError:
        return {"status": "not ready", "reasons": ["Redis does not respond"], "warnings": []}, 503
    reasons = find_reasons_not_ready(pools)
    warnings = [f"pool {pool.name}: {warning}" for pool in pools for warning in pool.warnings]
    warnings += durability.warnings + refreshers.warnings + file_store.warnings
    status = "not ready" if reasons else "ready"
    return {"status": status, "reasons": reasons, "warnings": warnings}, 503 if reasons else 200


def find_reasons_not_ready(pools: list[PoolStatus]) -> list[str]:
    if any(pool.is_served for pool in pools):
        return []
    if not any(sum(pool.credentials.values()) for pool in pools):
        return ["there are no credentials: add one with `./farm credentials add`"]
    return ["no worker is running"]


@blueprint.get("/api/status")
def status() -> dict[str, Any]:
    """The state of the farm, in the shape that tools around OpenAI gateways read."""
    web_services = services()
    check_metrics_token(request, web_services.settings.metrics_token)
    pools = read_pool_statuses(web_services.redis, [pool.name for pool in web_services.pool_selector])
    data = {
        "version": VERSION,
        "system_name": "token farm",
        "start_time": int(web_services.started_at),
        "uptime_seconds": int(time.time() - web_services.started_at),
        "pools": [pool.to_dict() for pool in pools],
    }
    return {"success": True, "message": "", "data": data}
