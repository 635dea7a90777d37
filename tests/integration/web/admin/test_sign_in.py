"""Signing in by the admin API: a resource with a state, and a page to which the browser comes back, once."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import gevent
import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared import clock, keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations
from shared.redis_connection.client import connect
from shared.sign_in.sign_in import ANSWER_OPERATION, BEGIN_OPERATION, hash_state
from shared.sign_in.sign_ins import SignIns

API = "/admin/api/v1/sign-ins"
CALLBACK = "/admin/sign-in/callback"
CONFIGURED = "a configured admin token"
HEADERS = {"authorization": f"Bearer {CONFIGURED}"}


class WorkerProcess:
    """Carries out the operations of sign-ins as a worker process does, without an authorization server."""

    def __init__(self, redis: Redis, redis_url: str) -> None:
        self._redis = connect(redis_url)
        self._sign_ins = SignIns(redis)
        self.operations: list[str] = []
        self.result: dict[str, Any] = {"ok": True}
        redis.zadd(keys.PROCESSES, {"here": clock.now()})
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            if popped := self._redis.blpop([keys.operations("here")], timeout=5):
                operation = CredentialOperation.decode(popped[1])
                self._carry_out(operation.credential_id, operation.kind)
                CredentialOperations(self._redis).respond(operation, self.result)

    def _carry_out(self, sign_in_id: str, kind: str) -> None:
        self.operations.append(kind)
        if not self.result["ok"]:
            return
        if kind == BEGIN_OPERATION:
            self._redis.set(keys.sign_in_state(hash_state("the state")), sign_in_id)
            redirect_uri = self._redis.hget(keys.sign_in(sign_in_id), "redirect_uri").decode()
            self._sign_ins.change(sign_in_id, url=f"https://login.example/?redirect_uri={redirect_uri}")
        else:
            end = {"credential_id": "c1", "outcome": "added", "account": "a***e@login.example"}
            self._sign_ins.change(sign_in_id, state="done", **end)

    def close(self) -> None:
        self._greenlet.kill()
        self._redis.connection_pool.disconnect()


@pytest.fixture
def worker(redis: Redis, redis_url: str, unsealer: object) -> Iterator[WorkerProcess]:
    AdminTokens(redis).ensure_first(CONFIGURED)
    worker = WorkerProcess(redis, redis_url)
    yield worker
    worker.close()


def begin(client: FlaskClient, **body: str) -> dict[str, Any]:
    response = client.post(API, json=body, headers=HEADERS)
    assert (response.status_code, response.json is not None) == (201, True), response.text
    return dict(response.json or {})


def read(client: FlaskClient, sign_in: dict[str, Any]) -> dict[str, Any]:
    return dict(client.get(f"{API}/{sign_in['id']}", headers=HEADERS).json or {})


def test_browser_that_comes_back_ends_the_sign_in(client: FlaskClient, worker: WorkerProcess):
    sign_in = begin(client, label="mine")
    assert (sign_in["state"], sign_in["label"]) == ("pending", "mine")
    assert parse_qs(urlsplit(sign_in["url"]).query)["redirect_uri"] == [f"http://localhost{CALLBACK}"]
    page = client.get(f"{CALLBACK}?code=c&state=the+state")
    assert (page.status_code, "a***e@login.example" in page.text) == (200, True)
    assert page.headers["referrer-policy"] == "no-referrer"
    done = read(client, sign_in)
    assert (done["state"], done["credential_id"], done["outcome"]) == ("done", "c1", "added")
    assert worker.operations == [BEGIN_OPERATION, ANSWER_OPERATION]


def test_answer_is_taken_once_and_only_with_its_state(client: FlaskClient, worker: WorkerProcess):
    begin(client)
    assert client.get(f"{CALLBACK}?code=c&state=guessed").status_code == 400
    assert client.get(CALLBACK).status_code == 400
    assert client.get(f"{CALLBACK}?code=c&state=the+state").status_code == 200
    assert client.get(f"{CALLBACK}?code=c&state=the+state").status_code == 400
    assert worker.operations == [BEGIN_OPERATION, ANSWER_OPERATION]


def test_resource_itself_needs_an_admin_token(client: FlaskClient, worker: WorkerProcess):
    assert client.post(API, json={}).status_code == 401
    assert client.get(API).status_code == 401
    assert worker.operations == []


def test_cancelled_sign_in_takes_no_answer(client: FlaskClient, worker: WorkerProcess):
    sign_in = begin(client)
    assert client.delete(f"{API}/{sign_in['id']}", headers=HEADERS).status_code == 204
    assert client.get(f"{CALLBACK}?code=c&state=the+state").status_code == 400
    assert read(client, sign_in)["error"] == "cancelled"


def test_sign_in_whose_time_is_over_has_expired(client: FlaskClient, worker: WorkerProcess, redis: Redis):
    sign_in = begin(client)
    redis.hset(keys.sign_in(sign_in["id"]), "expires_at", clock.now() - 1)
    assert read(client, sign_in)["state"] == "expired"
    assert client.get(f"{CALLBACK}?code=c&state=the+state").status_code == 400
    assert [entry["state"] for entry in client.get(API, headers=HEADERS).json["data"]] == ["expired"]


def test_sign_in_that_can_not_begin_is_a_conflict_with_its_reason(client: FlaskClient, worker: WorkerProcess):
    worker.result = {"ok": False, "error": "FARM_CLIENT_ID is not set"}
    response = client.post(API, json={"flow": "device"}, headers=HEADERS)
    assert (response.status_code, response.json["error"]["code"]) == (409, "sign_in_failed")
    assert "FARM_CLIENT_ID" in response.json["error"]["message"]
    assert client.post(API, json={"pool": "none"}, headers=HEADERS).status_code == 404


def test_pending_sign_ins_are_bounded_and_their_end_makes_room(
    client: FlaskClient, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shared.sign_in.sign_ins.MAX_PENDING", 1)
    sign_in = begin(client)
    assert client.post(API, json={}, headers=HEADERS).json["error"]["code"] == "conflict"
    client.delete(f"{API}/{sign_in['id']}", headers=HEADERS)
    begin(client)


def test_public_name_is_where_the_browser_comes_back_to(start_app: Callable[..., Any], worker: WorkerProcess):
    client = start_app(domain=("farm.example",), https="auto").test_client()
    assert f"redirect_uri=https://farm.example{CALLBACK}" in begin(client)["url"]
