"""Mounts the RQ dashboard at /admin/rq/."""

import rq.serializers
import rq_dashboard.web
from flask import Flask
from rq.serializers import JSONSerializer

PREFIX = "/admin/rq"


def mount(app: Flask, redis_url: str) -> None:
    disable_pickle()
    app.config["RQ_DASHBOARD_REDIS_URL"] = redis_url
    rq_dashboard.web.setup_rq_connection(app)
    app.register_blueprint(rq_dashboard.web.blueprint, url_prefix=PREFIX)


def disable_pickle() -> None:
    """Replaces RQ's default serializer, pickle, by JSON in this process: the dashboard reads jobs with the default."""
    rq.serializers.PickleSerializer = JSONSerializer  # type: ignore[assignment]
    rq_dashboard.web.config.serializer = JSONSerializer
