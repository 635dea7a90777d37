"""The batch endpoints, as OpenAI's API has them."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openai.types import Batch
from redis import Redis
from werkzeug.test import TestResponse

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.batches import batch_store
from shared.files.file_record import BATCH, BATCH_OUTPUT
from shared.files.file_store import Files
from shared.settings.schema import Settings
from web.app import create_app
from web.services import EXTENSION


class Caller:
    """A client of one front with an API key, which may upload."""

    def __init__(self, client: FlaskClient, files: Files, redis: Redis, **limits: Any) -> None:
        self._client = client
        self._files = files
        secret, self.key = ApiKeys(redis).create("k", **limits)
        self._headers = {"authorization": f"Bearer {secret}"}

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        return self._client.open(path, method=method, headers=self._headers, **options)

    def upload(self, purpose: str = BATCH) -> str:
        with self._files.create() as writer:
            writer.write(b"{}\n")
            return self._files.commit(writer, self.key.id, "in.jsonl", purpose).id

    def create(self, **fields: Any) -> TestResponse:
        """Creates a batch; None leaves a field out."""
        values = {"endpoint": "/v1/completions", "completion_window": "24h", "input_file_id": None, **fields}
        if "input_file_id" not in fields:
            values["input_file_id"] = self.upload()
        return self.call("POST", "/v1/batches", json={name: each for name, each in values.items() if each is not None})


@pytest.fixture(scope="module")
def front(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The app of a front that runs no batch, for all tests of the module."""
    return create_app(Settings(redis_url=redis_url, data_dir=str(tmp_path_factory.mktemp("data"))))


@pytest.fixture
def caller(front: Flask, redis: Redis) -> Caller:
    return Caller(front.test_client(), front.extensions[EXTENSION].files, redis)


@pytest.fixture
def stranger(front: Flask, redis: Redis) -> Caller:
    return Caller(front.test_client(), front.extensions[EXTENSION].files, redis)


def read_error(response: TestResponse) -> tuple[int, str, str | None]:
    error = response.json["error"]
    assert error["message"] and error["type"]
    return response.status_code, error["code"], error["param"]


def test_a_new_batch_is_validating(caller: Caller, redis: Redis):
    response = caller.create(metadata={"book": "1"}, output_expires_after={"anchor": "created_at", "seconds": 3600})
    batch = Batch.model_validate(response.json, strict=True)
    assert response.status_code == 200 and batch.id.startswith("batch_") and batch.status == "validating"
    assert batch.metadata == {"book": "1"} and batch.expires_at == batch.created_at + 86_400
    assert batch.output_file_id is None and batch.error_file_id is None
    assert caller.call("GET", f"/v1/batches/{batch.id}").json == response.json
    assert redis.zcard(keys.RESERVED_FILES) == 2


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"endpoint": None}, 400, "missing_required_parameter", "endpoint"),
        ({"endpoint": "/v1/audio/speech"}, 400, "invalid_value", "endpoint"),
        ({"endpoint": 5}, 400, "invalid_type", "endpoint"),
        ({"completion_window": None}, 400, "missing_required_parameter", "completion_window"),
        ({"completion_window": "soon"}, 400, "invalid_value", "completion_window"),
        ({"input_file_id": None}, 400, "missing_required_parameter", "input_file_id"),
        ({"input_file_id": "file-none"}, 404, "file_not_found", "input_file_id"),
        ({"input_file_id": "\ud800"}, 404, "file_not_found", "input_file_id"),
        ({"metadata": "text"}, 400, "invalid_value", "metadata"),
        ({"metadata": {"a": 5}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"a": "x" * 513}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"a" * 65: "x"}}, 400, "invalid_value", "metadata"),
        ({"metadata": dict.fromkeys(map(str, range(17)), "")}, 400, "invalid_value", "metadata"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
            400,
            "invalid_value",
            "output_expires_after",
        ),
        ({"output_expires_after": {"seconds": 3600}}, 400, "invalid_value", "output_expires_after"),
    ],
)
def test_a_bad_field_is_refused(caller: Caller, fields: dict[str, Any], status: int, code: str, param: str):
    assert read_error(caller.create(**fields)) == (status, code, param)
    assert caller.call("GET", "/v1/batches").json["data"] == []


def test_bad_json_is_refused(caller: Caller):
    assert read_error(caller.call("POST", "/v1/batches", data="{"))[1] == "invalid_json"
    assert caller.call("POST", "/v1/batches", data="x" * 70_000).status_code == 413


def test_only_the_keys_own_input_is_taken(caller: Caller, stranger: Caller):
    assert read_error(caller.create(input_file_id=stranger.upload()))[1] == "file_not_found"
    assert read_error(caller.create(input_file_id=caller.upload(BATCH_OUTPUT)))[1] == "invalid_purpose"


def test_an_input_that_goes_at_that_moment_is_not_found(caller: Caller, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("web.batches.creation.check_input", lambda *args: redis.delete(keys.file(args[2])))
    assert read_error(caller.create()) == (404, "file_not_found", "input_file_id")
    assert redis.zcard(keys.RESERVED_FILES) == redis.zcard(keys.BATCHES) == 0


def test_a_batch_is_its_keys_own(caller: Caller, stranger: Caller):
    batch_id = caller.create().json["id"]
    assert read_error(stranger.call("GET", f"/v1/batches/{batch_id}"))[:2] == (404, "batch_not_found")
    assert read_error(stranger.call("POST", f"/v1/batches/{batch_id}/cancel"))[:2] == (404, "batch_not_found")
    assert read_error(stranger.call("GET", f"/v1/batches?after={batch_id}"))[:2] == (404, "batch_not_found")
    assert stranger.call("GET", "/v1/batches").json["data"] == []


def test_a_batch_is_cancelled(caller: Caller, front: Flask):
    batch_id = caller.create().json["id"]
    for _ in range(2):
        assert caller.call("POST", f"/v1/batches/{batch_id}/cancel").json["status"] == "cancelling"
    store = front.extensions[EXTENSION].batches.store
    store.change(store.get(batch_id), ("cancelling",), {"status": "cancelled"}, ends=True)
    assert read_error(caller.call("POST", f"/v1/batches/{batch_id}/cancel"))[:2] == (409, "batch_not_cancellable")


def test_batches_take_nothing_of_the_callers_limits(front: Flask, redis: Redis):
    caller = Caller(front.test_client(), front.extensions[EXTENSION].files, redis, rpm=1)
    path = f"/v1/batches/{caller.create().json['id']}"
    calls = [("GET", "/v1/batches"), ("GET", path), ("POST", f"{path}/cancel"), ("POST", f"{path}/cancel")]
    assert [caller.call(method, url).status_code for method, url in calls] == [200] * 4
    assert not redis.exists(keys.recent_requests(caller.key.id))


def test_batches_are_listed_by_pages(caller: Caller):
    ids = [caller.create().json["id"] for _ in range(3)]
    page = caller.call("GET", "/v1/batches?limit=2").json
    rest = caller.call("GET", f"/v1/batches?limit=2&after={page['last_id']}").json
    assert page["has_more"] and not rest["has_more"] and page["first_id"] == page["data"][0]["id"]
    assert sorted(batch["id"] for batch in page["data"] + rest["data"]) == sorted(ids)
    assert read_error(caller.call("GET", "/v1/batches?limit=101"))[1:] == ("invalid_value", "limit")


def test_too_many_unfinished_batches_are_refused(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_store, "MAX_UNFINISHED", 1)
    caller.create()
    response = caller.create()
    assert read_error(response)[:2] == (429, "too_many_batches") and response.headers["retry-after"] == "60"


def test_a_base_url_without_a_version_serves_batches(caller: Caller):
    batch_id = caller.create().json["id"]
    assert caller.call("GET", f"/batches/{batch_id}").json["id"] == batch_id
