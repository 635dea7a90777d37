"""Mounts the RQ dashboard at /admin/rq/."""

import re
from typing import Any

import rq.serializers
import rq_dashboard.web
from flask import Flask, abort, request
from redis import Redis
from rq import registry as rq_registry
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.serializers import JSONSerializer

from shared.errors import ApiError
from web.errors import handle_api_error
from web.routes import foreign_jobs
from web.routes.dashboard_templates import AdaptedDashboard

PREFIX = "/admin/rq"
BLUEPRINT = "rq_dashboard"
REGISTRY_CLASSES = (
    rq_registry.CanceledJobRegistry,
    rq_registry.DeferredJobRegistry,
    rq_registry.FailedJobRegistry,
    rq_registry.FinishedJobRegistry,
    rq_registry.ScheduledJobRegistry,
    rq_registry.StartedJobRegistry,
)
REGISTRIES = ("queued", "failed", "deferred", "started", "finished", "scheduled", "canceled")
#: Connections to Redis of one front's dashboard.
MAX_CONNECTIONS = 4
#: RQ refuses other job ids, which older versions of it had.
JOB_ID = re.compile(r"[A-Za-z0-9_-]+")
#: Largest number of a page, and of jobs on one.
MAX_PAGE = 1_000_000


def mount(app: Flask, redis: Redis) -> None:
    """Mounts the dashboard, which reads by this client: one of its own per request would know no TLS options."""
    disable_pickle()
    show_foreign_jobs()
    rq_dashboard.web.from_url = lambda *_, **__: (None, redis)
    app.config["RQ_DASHBOARD_REDIS_URL"] = ("the farm's Redis",)
    rq_dashboard.web.setup_rq_connection(app)
    app.jinja_env.add_extension(AdaptedDashboard)
    app.before_request(check_arguments)
    app.register_error_handler(NoSuchJobError, lambda _: handle_api_error(job_not_found_error()))
    app.register_error_handler(InvalidJobOperation, lambda error: handle_api_error(job_conflict_error(str(error))))
    app.register_blueprint(rq_dashboard.web.blueprint, url_prefix=PREFIX)


def disable_pickle() -> None:
    """Replaces RQ's default serializer, pickle, by JSON in this process: the dashboard reads jobs with the default."""
    rq.serializers.PickleSerializer = JSONSerializer  # type: ignore[assignment]
    rq_dashboard.web.config.serializer = JSONSerializer


def show_foreign_jobs() -> None:
    """Replaces the classes with which the dashboard reads; those that change jobs stay RQ's own."""
    dashboard = rq_dashboard.web
    dashboard.Job, dashboard.Queue, dashboard.Worker = (
        foreign_jobs.ShownJob,
        foreign_jobs.ShownQueue,
        foreign_jobs.ShownWorker,
    )
    for registry in REGISTRY_CLASSES:
        setattr(dashboard, registry.__name__, foreign_jobs.show_registry(registry))


def check_arguments() -> None:
    """Runs before each request: 404 for arguments that the dashboard has no page for, where it would raise."""
    if request.blueprint != BLUEPRINT:
        return
    arguments = request.view_args or {}
    is_valid = (
        arguments.get("instance_number", 0) == 0
        and arguments.get("registry_name", "queued") in REGISTRIES
        and arguments.get("order", "asc") in ("asc", "dsc")
        and JOB_ID.fullmatch(arguments.get("job_id", "-"))
        and is_page_number(arguments.get("page", 1))
        and is_page_number(arguments.get("per_page", 1))
    )
    if not is_valid:
        abort(404)


def is_page_number(value: Any) -> bool:
    text = str(value)
    return text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MAX_PAGE


def job_not_found_error() -> ApiError:
    return ApiError(404, "not_found", "there is no such job: it has ended, or was deleted")


def job_conflict_error(reason: str) -> ApiError:
    return ApiError(409, "conflict", reason or "the job's state does not allow this")
