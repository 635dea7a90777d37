"""A file or batch that is asked for again with its idempotency key is created once, whatever became of the reply."""

import io
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from werkzeug.test import TestResponse

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.batches import batch_store
from shared.batches.batch_store import Batches
from shared.files import file_writer
from shared.files.file_store import Files
from shared.files.file_writer import FileWriter
from shared.redis_connection import retry
from shared.settings.schema import Settings
from tests.internals import wrap_creation
from tests.waiting import eventually
from web.app import create_app
from web.services import EXTENSION, WebServices

LINES = b'{"custom_id": "a"}\n' * 5000


class InterruptedStream(io.BytesIO):
    """A body on whose way something happens."""

    def __init__(self, body: bytes, interrupt: Callable[[], Any]) -> None:
        super().__init__(body)
        self._interrupt = interrupt

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if data and self.tell() == len(self.getvalue()):
            self._interrupt()
        return data


class Caller:
    """A client of two fronts with an API key."""

    def __init__(self, fronts: list[Flask], redis: Redis, **limits: Any) -> None:
        self._fronts = fronts
        secret, self.key = ApiKeys(redis).create("k", **limits)
        self._headers = {"authorization": f"Bearer {secret}"}

    def call(self, method: str, path: str, front: int = 0, idempotency_key: str = "", **options: Any) -> TestResponse:
        headers = {**self._headers, **({"idempotency-key": idempotency_key} if idempotency_key else {})}
        return self._fronts[front].test_client().open(path, method=method, headers=headers, **options)

    def upload(
        self, idempotency_key: str = "", content: bytes = LINES, front: int = 0, boundary: str = "xyz", **fields: str
    ) -> TestResponse:
        body = build_form(content, boundary, fields)
        type_ = f"multipart/form-data; boundary={boundary}"
        return self.call("POST", "/v1/files", front, idempotency_key, data=body, content_type=type_)

    def upload_slowly(self, idempotency_key: str, interrupt: Callable[[], Any]) -> TestResponse:
        """Something happens before the end of the form has arrived."""
        body = build_form(LINES, "xyz", {})
        options = {"input_stream": InterruptedStream(body, interrupt), "content_length": len(body)}
        return self.call(
            "POST", "/v1/files", 0, idempotency_key, content_type="multipart/form-data; boundary=xyz", **options
        )

    def create(self, idempotency_key: str, input_file_id: str, front: int = 0, **fields: Any) -> TestResponse:
        values = {"endpoint": "/v1/completions", "completion_window": "24h", "input_file_id": input_file_id, **fields}
        return self.call("POST", "/v1/batches", front, idempotency_key, json=values)

    def count(self, collection: str) -> int:
        return len(self.call("GET", f"/v1/{collection}").json["data"])


def build_form(content: bytes, boundary: str, fields: dict[str, str]) -> bytes:
    filename = fields.pop("filename", "in.jsonl")
    values = {"purpose": "batch", **fields}
    parts = [f'content-disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in values.items()]
    parts.append(f'content-disposition: form-data; name="file"; filename="{filename}"\r\n\r\n{content.decode()}')
    return "".join([*(f"--{boundary}\r\n{part}\r\n" for part in parts), f"--{boundary}--\r\n"]).encode()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def fronts(redis_url: str, data_dir: Path) -> list[Flask]:
    """Two fronts, for all tests of the module."""
    settings = Settings(redis_url=redis_url, data_dir=str(data_dir), files_bytes=2 * len(LINES))
    return [create_app(settings) for _ in range(2)]


@pytest.fixture
def late_front(fronts: list[Flask]) -> Iterator[Flask]:
    """The first front, whose scripts a test may change."""
    services = services_of(fronts[0])
    files, store = copy(services.files), copy(services.batches.store)
    yield fronts[0]
    vars(services.files).update(vars(files))
    vars(services.batches.store).update(vars(store))


@pytest.fixture
def caller(fronts: list[Flask], redis: Redis) -> Caller:
    return Caller(fronts, redis)


def services_of(front: Flask) -> WebServices:
    services: WebServices = front.extensions[EXTENSION]
    return services


def check_reused(response: TestResponse) -> None:
    assert (response.status_code, response.json["error"]["code"]) == (422, "idempotency_key_reused")


def check_same(first: TestResponse, second: TestResponse) -> None:
    assert (first.status_code, first.headers["x-farm-cache"]) == (200, "miss")
    assert (second.status_code, second.headers["x-farm-cache"]) == (200, "hit")
    assert first.data == second.data


def test_retried_upload_gets_the_first_file_for_ten_minutes(caller: Caller, redis: Redis):
    first = caller.upload("k1")
    check_same(first, caller.upload("k1", front=1, boundary="other"))
    assert caller.count("files") == 1
    (record,) = redis.keys("farm:creation:*")
    assert 590 < redis.ttl(record) <= 600
    redis.pexpire(record, 1)
    eventually(lambda: not redis.exists(record))
    assert caller.upload("k1").json["id"] != first.json["id"]
    assert caller.count("files") == 2


def test_retried_batch_gets_the_first_one_for_ten_minutes(caller: Caller, redis: Redis):
    file_id = caller.upload().json["id"]
    first = caller.create("k1", file_id)
    check_same(first, caller.create("k1", file_id, front=1))
    caller.call("DELETE", f"/v1/files/{file_id}")
    check_same(first, caller.create("k1", file_id))
    assert caller.count("batches") == 1
    (record,) = redis.keys("farm:creation:*")
    assert 590 < redis.ttl(record) <= 600


def test_retry_takes_no_room_of_its_own(caller: Caller, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    before = list_stored(data_dir)
    first = [caller.upload(f"k{number}") for number in range(2)]
    assert caller.upload("k2").json["error"]["code"] == "file_quota_exceeded"
    monkeypatch.setattr(file_writer, "PART_BYTES", 1000)
    monkeypatch.setattr(FileWriter, "flush", lambda _: pytest.fail("a retry is stored"))
    check_same(first[0], caller.upload("k0"))
    assert list_stored(data_dir) - before == {each.json["id"] for each in first}


@pytest.mark.parametrize(
    "other",
    [
        {"content": LINES.replace(b"a", b"b")},
        {"filename": "other.jsonl"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
    ],
)
def test_other_upload_under_the_key_is_refused(caller: Caller, data_dir: Path, other: dict[str, Any]):
    caller.upload("k1")
    before = list_stored(data_dir)
    check_reused(caller.upload("k1", **other))
    assert list_stored(data_dir) == before and caller.count("files") == 1


def test_other_batch_under_the_key_is_refused(caller: Caller):
    file_id = caller.upload("k1").json["id"]
    check_reused(caller.create("k1", file_id))
    caller.create("k2", file_id)
    check_reused(caller.create("k2", file_id, metadata={"book": "2"}))
    assert caller.count("batches") == 1


def test_keys_of_different_callers_have_nothing_to_do_with_each_other(
    caller: Caller, fronts: list[Flask], redis: Redis
):
    other = Caller(fronts, redis)
    ids = {each.upload("k1").json["id"] for each in (caller, other)}
    assert len(ids) == 2
    assert other.create("k2", other.upload("k1").json["id"]).status_code == 200
    assert caller.count("batches") == 0


@pytest.mark.parametrize("content", [LINES, LINES.replace(b"a", b"b")])
def test_of_two_uploads_at_once_the_first_to_end_is_kept(caller: Caller, data_dir: Path, content: bytes):
    ended: list[TestResponse] = []
    before = list_stored(data_dir)
    late = caller.upload_slowly("k1", lambda: ended or ended.append(caller.upload("k1", content, front=1)))
    (early,) = ended
    if content == LINES:
        check_same(early, late)
    else:
        check_reused(late)
    assert caller.count("files") == 1
    assert list_stored(data_dir) - before == {early.json["id"]}


def list_stored(data_dir: Path) -> set[str]:
    """The ids of files of which the store has parts."""
    return {path.parent.name for path in data_dir.rglob("0*")}


def test_of_two_batches_at_once_one_is_created(caller: Caller, late_front: Flask, redis: Redis):
    file_id, early = caller.upload().json["id"], list[TestResponse]()

    def wrap(create: Callable[..., Any]) -> Callable[..., Any]:
        def create_late(**options: Any) -> Any:
            early.append(caller.create("k1", file_id, front=1))
            return create(**options)

        return create_late

    wrap_creation(services_of(late_front).batches.store, wrap)
    late = caller.create("k1", file_id)
    check_same(early[0], late)
    assert caller.count("batches") == 1


def test_failed_creation_is_tried_again(caller: Caller):
    assert caller.create("k1", "file-none").status_code == 404
    assert caller.upload("k2", purpose="evals").status_code == 400
    file_id = caller.upload("k2").json["id"]
    assert caller.create("k1", file_id).headers["x-farm-cache"] == "miss"


def test_refused_batch_is_tried_again(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    file_id = caller.upload().json["id"]
    monkeypatch.setattr(batch_store, "MAX_UNFINISHED", 0)
    assert caller.create("k1", file_id).status_code == 429
    monkeypatch.undo()
    assert caller.create("k1", file_id).headers["x-farm-cache"] == "miss"


def test_cut_upload_is_taken_again(caller: Caller):
    def cut() -> None:
        raise OSError

    assert caller.upload_slowly("k1", cut).json["error"]["code"] == "incomplete_body"
    assert caller.upload("k1").headers["x-farm-cache"] == "miss"
    assert caller.count("files") == 1


def lose_replies(owner: Files | Batches, most: int = 1000) -> None:
    """Redis runs the script, and the front does not get to know it, as when it is killed then."""
    lost = list[bool]()

    def wrap(run: Callable[..., Any]) -> Callable[..., Any]:
        def run_and_lose(**options: Any) -> Any:
            reply = run(**options)
            if len(lost) == most:
                return reply
            lost.append(True)
            raise RedisConnectionError

        return run_and_lose

    wrap_creation(owner, wrap)


def test_file_whose_reply_was_lost_is_found_by_the_retry(
    caller: Caller, late_front: Flask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retry, "REDIS_TIMEOUT_SECONDS", 0)
    lose_replies(services_of(late_front).files)
    assert caller.upload("k1").status_code == 503
    retried = caller.upload("k1", front=1)
    assert retried.headers["x-farm-cache"] == "hit" and caller.count("files") == 1
    assert caller.call("GET", f"/v1/files/{retried.json['id']}/content").data == LINES


def test_batch_whose_reply_was_lost_is_found_by_the_retry(
    caller: Caller, late_front: Flask, monkeypatch: pytest.MonkeyPatch
):
    file_id = caller.upload().json["id"]
    monkeypatch.setattr(retry, "REDIS_TIMEOUT_SECONDS", 0)
    lose_replies(services_of(late_front).batches.store)
    assert caller.create("k1", file_id).status_code == 503
    assert caller.create("k1", file_id, front=1).headers["x-farm-cache"] == "hit"
    assert caller.count("batches") == 1


@pytest.mark.parametrize("has_key", [True, False])
def test_creation_whose_reply_was_lost_is_repeated_by_the_front(caller: Caller, late_front: Flask, has_key: bool):
    for owner in (services_of(late_front).files, services_of(late_front).batches.store):
        lose_replies(owner, most=1)
    uploaded = caller.upload("k1" if has_key else "")
    assert caller.call("GET", f"/v1/files/{uploaded.json['id']}/content").data == LINES
    created = caller.create("k2" if has_key else "", uploaded.json["id"])
    assert {each.headers.get("x-farm-cache") for each in (uploaded, created)} == {"miss" if has_key else None}
    assert caller.count("files") == caller.count("batches") == 1


def test_invalid_key_is_refused(caller: Caller, redis: Redis):
    assert caller.upload('"open').json["error"]["code"] == "invalid_idempotency_key"
    assert caller.create('"open', "file-x").json["error"]["code"] == "invalid_idempotency_key"
    assert redis.keys("farm:creation:*") == []


def test_redis_shows_no_idempotency_key(caller: Caller, redis: Redis):
    caller.upload("a-secret-key")
    (record,) = redis.keys("farm:creation:*")
    assert b"a-secret-key" not in record + b"".join(redis.hvals(record))
    assert record.decode() == keys.creation(record.decode().rpartition(":")[2])
