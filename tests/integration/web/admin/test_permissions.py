"""A viewer's token changes nothing, in the admin API and in the RQ dashboard, whatever the method."""

import re

import pytest
import rq_dashboard.web
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from shared.api_keys.admin_tokens import AdminTokens
from web.admin.access import permissions

UNSAFE_METHODS = ("POST", "PUT", "PATCH", "DELETE")
#: Values of the dashboard's path parameters.
PATH_VALUES = {
    "instance_number": "0",
    "per_page": "8",
    "page": "1",
    "order": "asc",
    "registry_name": "failed",
    "queue_name": "chat:default",
    "filename": "css/main.css",
}


@pytest.fixture
def viewer(redis: Redis) -> dict[str, str]:
    """Headers of a viewer."""
    return {"authorization": f"Bearer {AdminTokens(redis).create('dashboard', 'viewer')[0]}"}


@pytest.fixture
def admin(redis: Redis) -> dict[str, str]:
    """Headers of an admin."""
    return {"authorization": f"Bearer {AdminTokens(redis).create('operator', 'admin')[0]}"}


@pytest.fixture
def failed_job(redis: Redis) -> str:
    """Id of a failed job."""
    queue = Queue("chat:default", connection=redis, serializer=JSONSerializer)
    job = queue.enqueue("shared.nothing")
    queue.remove(job)
    job.set_status("failed")
    FailedJobRegistry(queue=queue).add(job, 600, "an error")
    return job.id


def list_rules(app: Flask, prefix: str) -> list[Rule]:
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(prefix)]
    assert len(rules) > 5
    return rules


def build_path(rule: Rule, **values: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda match: {**PATH_VALUES, **values}.get(match[1], "x"), rule.rule)


def is_forbidden(response: TestResponse) -> bool:
    """Whether the role was refused; the response to HEAD has no body that could say so."""
    is_described = response.request.method == "HEAD" or response.json["error"]["code"] == "forbidden"
    return response.status_code == 403 and is_described


def test_every_view_of_the_dashboard_is_listed_as_reading_or_changing():
    app = Flask("dashboard")
    app.register_blueprint(rq_dashboard.web.blueprint)
    views = {rule.endpoint for rule in app.url_map.iter_rules() if rule.endpoint.startswith("rq_dashboard.")}
    assert views == permissions.READING_VIEWS | permissions.CHANGING_VIEWS
    assert not permissions.READING_VIEWS & permissions.CHANGING_VIEWS


def test_viewer_reads_the_dashboard_and_changes_nothing_by_any_method(
    client: FlaskClient, viewer: dict[str, str], failed_job: str, redis: Redis
):
    for rule in list_rules(client.application, "/admin/rq"):
        reads = rule.endpoint in permissions.READING_VIEWS
        for method in rule.methods or ():
            response = client.open(build_path(rule, job_id=failed_job), method=method, headers=viewer)
            response.close()
            assert (response.status_code < 400) if reads else is_forbidden(response), (method, rule.rule)
    assert redis.zrange("rq:failed:chat:default", 0, -1) == [failed_job.encode()]


def test_get_changes_nothing_for_an_admin_either(
    client: FlaskClient, admin: dict[str, str], failed_job: str, redis: Redis
):
    for method in ("GET", "HEAD"):
        refused = client.open("/admin/rq/requeue/chat:default", method=method, headers=admin)
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert redis.llen("rq:queue:chat:default") == 0
    assert client.post("/admin/rq/requeue/chat:default", headers=admin).status_code == 200
    assert redis.llen("rq:queue:chat:default") == 1


def test_view_that_a_new_dashboard_brings_is_closed_to_viewers(
    client: FlaskClient, viewer: dict[str, str], admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    reading = permissions.READING_VIEWS - {"rq_dashboard.list_queues"}
    monkeypatch.setattr(permissions, "READING_VIEWS", reading)
    assert is_forbidden(client.get("/admin/rq/0/data/queues.json", headers=viewer))
    assert client.get("/admin/rq/0/data/queues.json", headers=admin).status_code == 405


def test_viewer_is_refused_by_every_unsafe_operation_of_the_api(client: FlaskClient, viewer: dict[str, str]):
    tried = 0
    for rule in list_rules(client.application, "/admin/api"):
        for method in set(rule.methods or ()) & set(UNSAFE_METHODS):
            tried += 1
            assert is_forbidden(client.open(build_path(rule), method=method, json={}, headers=viewer)), rule.rule
    assert tried > 10


def test_viewer_with_a_session_may_log_out(client: FlaskClient, redis: Redis):
    secret, _ = AdminTokens(redis).create("dashboard", "viewer")
    assert client.post("/admin/login", data={"token": secret}).status_code == 302
    assert client.get("/admin/", follow_redirects=True).status_code == 200
    assert client.post("/admin/logout").status_code == 302
