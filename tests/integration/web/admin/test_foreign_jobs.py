"""The RQ dashboard shows its pages whatever other programs keep in the same Redis."""

import zlib
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import DefaultSerializer
from werkzeug.test import TestResponse

from shared.api_keys.admin_tokens import AdminTokens
from web.routes.foreign_jobs import UNREADABLE

#: Keys of RQ's registries, and their names in the dashboard.
REGISTRIES = {
    "wip": "started",
    "failed": "failed",
    "deferred": "deferred",
    "finished": "finished",
    "scheduled": "scheduled",
    "canceled": "canceled",
}
LISTED = "/admin/rq/0/data/jobs/theirs/queued/50/asc/1.json"


#: Grows with each pickle that is loaded.
loaded: list[bool] = []


class Pickle:
    """Something that must not be loaded."""

    def __reduce__(self) -> tuple:
        return (record_load, ())


def record_load() -> str:
    loaded.append(True)
    return "loaded"


@pytest.fixture
def get(redis: Redis, start_app: Callable[..., Flask]) -> Callable[..., TestResponse]:
    """Requests a page below /admin/rq as an admin."""
    secret, _ = AdminTokens(redis).create("test", "admin")
    client: FlaskClient = start_app().test_client()
    return lambda path, method="GET": client.open(path, method=method, headers={"authorization": f"Bearer {secret}"})


@pytest.fixture
def theirs(redis: Redis) -> list[str]:
    """Another program's queue with jobs of every kind; returns their ids."""
    queue = Queue("theirs", connection=redis, serializer=DefaultSerializer)
    first = queue.enqueue("os.getcwd", job_id="pickled", meta={"a": Pickle()}, description="")
    queue.enqueue("os.getcwd", Pickle(), job_id="dependent", depends_on=first)
    queue.enqueue("os.getcwd", job_id="odd-dates")
    redis.hset(Job.key_for("odd-dates"), mapping={"created_at": "yesterday", "status": "of-a-later-version"})
    queue.enqueue("os.getcwd", job_id="broken")
    redis.hset(Job.key_for("broken"), "data", b"\x80\x04broken")
    redis.hset(Job.key_for("with-a-result"), mapping={"data": zlib.compress(b"[1]"), "origin": "theirs"})
    redis.xadd("rq:results:with-a-result", {"type": 1, "return_value": "gASVBAAAAAAAAABLKi4="})
    redis.hset(Job.key_for("other.id:1"), mapping={"data": b"x", "origin": "theirs"})
    redis.set(Job.key_for("no-hash"), "x")
    redis.rpush(queue.key, "with-a-result", "other.id:1", "no-hash", "gone")
    redis.sadd("rq:queues", "rq:queue:of-another-type", "no queue at all", b"rq:queue:\xff", "rq:queue:odd-registry")
    redis.set("rq:queue:of-another-type", "x")
    redis.set("rq:failed:odd-registry", "x")
    for registry in REGISTRIES:
        redis.zadd(f"rq:{registry}:theirs", {"pickled": 1, "gone": 2, "other.id:1": 3, b"\xff": 4, "odd-dates:1": 5})
    loaded.clear()
    return ["pickled", "dependent", "odd-dates", "broken", "with-a-result"]


@pytest.fixture
def their_workers(redis: Redis) -> None:
    redis.sadd("rq:workers", "rq:worker:theirs", "rq:worker:odd", "rq:worker:gone", "no worker")
    redis.hset("rq:worker:theirs", mapping={"state": "busy", "queues": "theirs", "current_job": "pickled"})
    redis.hset("rq:worker:odd", mapping={"birth": "yesterday", "pid": "x"})


PAGES = [
    "/admin/rq/",
    "/admin/rq/0/view/workers",
    "/admin/rq/0/view/jobs",
    "/admin/rq/0/view/jobs/theirs/queued/8/asc/1",
    "/admin/rq/0/data/queues.json",
    "/admin/rq/0/data/workers.json",
    LISTED,
    "/admin/rq/0/data/jobs/of-another-type/queued/8/dsc/1.json",
    *(f"/admin/rq/0/data/jobs/theirs/{name}/8/asc/1.json" for name in REGISTRIES.values()),
]


@pytest.mark.parametrize("path", PAGES)
def test_page_is_shown_beside_foreign_jobs(get, theirs: list[str], their_workers: None, path: str):
    assert (get(path).status_code, loaded) == (200, [])


def test_readable_parts_are_shown_and_others_called_unreadable(
    get, theirs: list[str], their_workers: None, redis: Redis
):
    jobs = {job["id"]: job for job in get(LISTED).json["jobs"]}
    assert set(jobs) == {*theirs, "other.id:1", "no-hash"} - {"dependent"}
    assert jobs["other.id:1"]["description"] == UNREADABLE
    queues = {queue["name"] for queue in get("/admin/rq/0/data/queues.json").json["queues"]}
    assert "theirs" in queues and "of-another-type" not in queues and "odd-registry" in queues
    started = get(LISTED.replace("queued", "started")).json["jobs"]
    assert {"pickled", "odd-dates"} <= {job["id"] for job in started}
    workers = {worker["name"] for worker in get("/admin/rq/0/data/workers.json").json["workers"]}
    assert workers == {"theirs"}
    assert redis.lrange("rq:queue:theirs", 0, -1).count(b"gone") == 1, "reading changes nothing"


@pytest.mark.parametrize("view", ["view/job/{}", "data/job/{}.json"])
def test_each_foreign_job_has_its_page(get, theirs: list[str], view: str):
    assert [get(f"/admin/rq/0/{view.format(job_id)}").status_code for job_id in theirs] == 5 * [200]
    assert loaded == []


@pytest.mark.parametrize(
    "path",
    [
        "/admin/rq/5/view",
        "/admin/rq/1/data/queues.json",
        "/admin/rq/0/view/job/nope",
        "/admin/rq/0/data/job/nope.json",
        "/admin/rq/0/data/job/other.id:1.json",
        "/admin/rq/0/data/jobs/theirs/nope/8/asc/1.json",
        "/admin/rq/0/data/jobs/theirs/queued/x/asc/1.json",
        "/admin/rq/0/data/jobs/theirs/queued/0/asc/1.json",
        "/admin/rq/0/data/jobs/theirs/queued/8/up/1.json",
        "/admin/rq/0/data/jobs/theirs/queued/8/asc/-1.json",
        "/admin/rq/0/view/jobs/theirs/nope/8/asc/1",
    ],
)
def test_page_that_there_is_not_is_a_404(get, theirs: list[str], path: str):
    response = get(path)
    assert (response.status_code, response.json["error"]["code"]) in {(404, "unknown_url"), (404, "not_found")}


def test_change_of_a_foreign_job_spoils_nothing(get, theirs: list[str], redis: Redis):
    before = redis.hmget(Job.key_for("pickled"), "data", "meta")
    assert get("/admin/rq/job/nope/requeue", "POST").status_code == 404
    assert get("/admin/rq/job/with-a-result/requeue", "POST").status_code == 409
    assert get("/admin/rq/job/pickled/requeue", "POST").json == {"status": "OK"}
    assert (redis.hmget(Job.key_for("pickled"), "data", "meta"), loaded) == (before, [])
    assert get("/admin/rq/job/broken/delete", "POST").json == {"status": "OK"}
    assert not redis.exists(Job.key_for("broken"))
