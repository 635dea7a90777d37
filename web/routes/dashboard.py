"""Mounts the RQ dashboard at /admin/rq/ and makes it read the farm's JSON jobs; its pages are its own."""

import rq.serializers
import rq_dashboard.web
from flask import Flask
from rq.serializers import JSONSerializer

PREFIX = "/admin/rq"


def mount(app: Flask, redis_url: str) -> None:
    """Adds the dashboard's pages to the app."""
    disable_pickle()
    app.config["RQ_DASHBOARD_REDIS_URL"] = redis_url
    rq_dashboard.web.setup_rq_connection(app)
    app.register_blueprint(rq_dashboard.web.blueprint, url_prefix=PREFIX)


def disable_pickle() -> None:
    """The dashboard reads workers and jobs with RQ's default serializer, which is pickle: JSON, for this process."""
    rq.serializers.PickleSerializer = JSONSerializer  # type: ignore[assignment]
    rq_dashboard.web.config.serializer = JSONSerializer
