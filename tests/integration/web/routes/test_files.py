"""The file endpoints, as OpenAI's API has them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.files.directory_store import DirectoryStore
from shared.files.file_store import Files
from shared.files.part_store import FileStoreDown, FileStoreFull, part_name
from shared.files.store_health import read_health
from shared.settings.schema import Settings
from web.app import create_app
from web.services import EXTENSION

LINES = b'{"custom_id": "a"}\n' * 20
DAY = 86_400


class Caller:
    """A client of one front with an API key."""

    def __init__(self, client: FlaskClient, redis: Redis, **limits: Any) -> None:
        self.client = client
        secret, self.key = ApiKeys(redis).create("k", **limits)
        self.headers = {"authorization": f"Bearer {secret}"}

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        headers = {**self.headers, **options.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **options)

    def upload(self, content: bytes = LINES, path: str = "/v1/files", **fields: Any) -> TestResponse:
        """Uploads a file, the purpose first; None leaves a field out."""
        fields = {"purpose": "batch", "file": (io.BytesIO(content), "in.jsonl"), **fields}
        form = {name: value for name, value in fields.items() if value is not None}
        return self.call("POST", path, data=form, content_type="multipart/form-data")

    def upload_id(self, content: bytes = LINES) -> str:
        return str(self.upload(content).json["id"])


@pytest.fixture(scope="module")
def front(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The app of a front, for all tests of the module."""
    data_dir = str(tmp_path_factory.mktemp("data"))
    settings = Settings(redis_url=redis_url, data_dir=data_dir, max_file=50_000, files_count=5, files_bytes=120_000)
    return create_app(settings)


@pytest.fixture
def files(front: Flask, tmp_path: Path) -> Files:
    """The files of the front, of which there are none yet."""
    files: Files = front.extensions[EXTENSION].files
    files.store = DirectoryStore(tmp_path / "files")
    return files


@pytest.fixture
def client(redis: Redis, front: Flask, files: Files) -> FlaskClient:
    return front.test_client()


@pytest.fixture
def caller(client: FlaskClient, redis: Redis) -> Caller:
    return Caller(client, redis)


def error_of(response: TestResponse) -> tuple[int, str, str | None]:
    error = response.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


def list_parts(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


def test_file_is_uploaded_shown_read_and_deleted(caller: Caller, tmp_path: Path):
    created = caller.upload().json
    expected = {"object": "file", "bytes": len(LINES), "filename": "in.jsonl", "purpose": "batch"}
    assert {**created, **expected, "status": "processed", "status_details": None} == created
    assert created["expires_at"] == created["created_at"] + 30 * DAY
    file_id = created["id"]
    assert caller.call("GET", f"/v1/files/{file_id}").json == created
    assert caller.call("GET", "/v1/files").json["data"] == [created]
    content = caller.call("GET", f"/v1/files/{file_id}/content")
    assert (content.data, content.headers["content-length"]) == (LINES, str(len(LINES)))
    assert caller.call("DELETE", f"/v1/files/{file_id}").json == {"id": file_id, "object": "file", "deleted": True}
    assert caller.call("GET", "/v1/files").json["data"] == []
    assert list_parts(tmp_path) == []
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert error_of(caller.call(method, f"/v1/files/{file_id}{path}")) == (404, "file_not_found", "id")


def test_purpose_may_come_after_the_file(caller: Caller):
    form = {"file": (io.BytesIO(LINES), "in.jsonl"), "purpose": "batch"}
    assert caller.call("POST", "/v1/files", data=form, content_type="multipart/form-data").json["bytes"] == len(LINES)


@pytest.mark.parametrize("prefix", ["", "/v1", "/v1/v1", "/openai", "/openai/v1", "/v1/chat/completions"])
def test_files_are_found_behind_any_base_url(caller: Caller, prefix: str):
    file_id = caller.upload(path=f"{prefix}/files").json["id"]
    assert caller.call("GET", f"{prefix}/files/").json["data"][0]["id"] == file_id
    assert caller.call("GET", f"{prefix}/files/{file_id}?api-version=1").json["id"] == file_id
    assert caller.call("GET", f"{prefix}/files/{file_id}/content").data == LINES


def test_other_keys_file_is_not_found(client: FlaskClient, redis: Redis, caller: Caller):
    file_id, other = caller.upload_id(), Caller(client, redis)
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        response = other.call(method, f"/v1/files/{file_id}{path}")
        assert response.json["error"] == {
            "message": f"No such File object: {file_id}",
            "type": "invalid_request_error",
            "param": "id",
            "code": "file_not_found",
        }
    assert other.call("GET", "/v1/files").json["data"] == []
    assert caller.call("GET", f"/v1/files/{file_id}").status_code == 200


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"file": None}, (400, "missing_required_parameter", "file")),
        ({"file": "text"}, (400, "missing_required_parameter", "file")),
        ({"purpose": None}, (400, "missing_required_parameter", "purpose")),
        ({"purpose": ""}, (400, "invalid_purpose", "purpose")),
        ({"purpose": "fine-tune"}, (400, "invalid_purpose", "purpose")),
        ({"purpose": "batch_output"}, (400, "invalid_purpose", "purpose")),
        ({"purpose": "p" * 2000}, (400, "invalid_form", None)),
        ({"purpose": (io.BytesIO(b"batch"), "p")}, (400, "invalid_form", None)),
        ({"expires_after[seconds]": "3600"}, (400, "invalid_value", "expires_after[anchor]")),
        ({"expires_after[anchor]": "now"}, (400, "invalid_value", "expires_after[anchor]")),
        ({"expires_after[anchor]": "created_at"}, (400, "invalid_value", "expires_after[seconds]")),
    ],
)
def test_invalid_form_is_refused(caller: Caller, tmp_path: Path, fields: dict[str, Any], expected: tuple[Any, ...]):
    assert error_of(caller.upload(**fields)) == expected
    assert list_parts(tmp_path) == []


def test_purpose_is_refused_in_openais_words(caller: Caller):
    error = caller.upload(purpose="evals").json["error"]
    assert error["message"] == "'evals' is not one of ['batch'] - 'purpose'"


@pytest.mark.parametrize(("seconds", "status"), [("3600", 200), ("2592000", 200), ("3599", 400), ("1e9", 400)])
def test_file_expires_when_its_caller_says(caller: Caller, seconds: str, status: int):
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
    response = caller.upload(**fields)
    assert response.status_code == status
    if status == 200:
        assert response.json["expires_at"] - response.json["created_at"] == int(seconds)


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"--b\r\n", 400),
        ("multipart/form-data; boundary=b", b"nothing of a form", 400),
        ("multipart/form-data; boundary=b", b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nx', 400),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--", 400),
    ],
)
def test_body_that_is_no_form_is_refused(caller: Caller, content_type: str, body: bytes, status: int):
    response = caller.call("POST", "/v1/files", data=body, content_type=content_type)
    assert error_of(response) == (status, "invalid_form", None)


def test_only_the_name_of_the_file_is_kept(caller: Caller):
    assert caller.upload(file=(io.BytesIO(b""), "books/a b.jsonl")).json["filename"] == "a b.jsonl"
    file_id = caller.upload(file=(io.BytesIO(b""), "Büch;.jsonl")).json["id"]
    disposition = caller.call("GET", f"/v1/files/{file_id}/content").headers["content-disposition"]
    assert disposition == "attachment; filename*=UTF-8''B%C3%BCch%3B.jsonl"


def test_file_of_the_largest_size_is_taken_and_a_larger_one_is_not(caller: Caller, tmp_path: Path):
    assert caller.upload(bytes(50_000)).status_code == 200
    assert error_of(caller.upload(bytes(50_001))) == (413, "file_too_large", "file")
    assert error_of(caller.upload(bytes(500_000))) == (413, "file_too_large", "file")
    assert len(list_parts(tmp_path)) == 1


def test_key_stores_a_bounded_number_of_bytes_and_files(caller: Caller, tmp_path: Path):
    caller.upload(bytes(50_000))
    caller.upload(bytes(30_000))
    assert error_of(caller.upload(bytes(40_001))) == (400, "file_quota_exceeded", "file")
    for _ in range(3):
        assert caller.upload().status_code == 200
    assert error_of(caller.upload()) == (400, "file_quota_exceeded", "file")
    assert len(list_parts(tmp_path)) == 5


def test_list_has_pages(caller: Caller):
    ids = [caller.upload_id() for _ in range(3)]
    first = caller.call("GET", "/v1/files?limit=2").json
    assert [file["id"] for file in first["data"]] == [ids[2], ids[1]]
    assert (first["object"], first["first_id"], first["last_id"], first["has_more"]) == ("list", ids[2], ids[1], True)
    second = caller.call("GET", f"/v1/files?limit=2&after={first['last_id']}").json
    assert ([file["id"] for file in second["data"]], second["has_more"]) == ([ids[0]], False)
    assert [file["id"] for file in caller.call("GET", "/v1/files?order=asc").json["data"]] == ids
    assert caller.call("GET", "/v1/files?purpose=batch_output").json == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        pytest.param(f"limit={'9' * 5000}", "limit", id="more digits than Python converts"),
        ("order=up", "order"),
    ],
)
def test_invalid_query_of_a_list_is_refused(caller: Caller, query: str, param: str):
    assert error_of(caller.call("GET", f"/v1/files?{query}")) == (400, "invalid_value", param)


def test_list_after_an_unknown_file_is_an_error(caller: Caller):
    assert error_of(caller.call("GET", "/v1/files?after=file-x")) == (404, "file_not_found", "id")


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=-5", 375, 380), ("bytes=370-9999", 370, 380), ("bytes=7-", 7, 380)],
)
def test_range_of_a_file_is_sent(caller: Caller, wanted: str, start: int, end: int):
    path = f"/v1/files/{caller.upload_id()}/content"
    response = caller.call("GET", path, headers={"range": wanted})
    assert (response.status_code, response.data) == (206, LINES[start:end])
    assert response.headers["content-length"] == str(end - start)
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{len(LINES)}"


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "lines=1-2", "nonsense"])
def test_range_that_is_not_understood_is_the_whole_file(caller: Caller, wanted: str):
    response = caller.call("GET", f"/v1/files/{caller.upload_id()}/content", headers={"range": wanted})
    assert (response.status_code, response.data) == (200, LINES)


def test_interrupted_download_goes_on_where_it_was(caller: Caller):
    path = f"/v1/files/{caller.upload_id()}/content"
    etag = caller.call("HEAD", path).headers["etag"]
    rest = caller.call("GET", path, headers={"range": "bytes=5-", "if-range": etag})
    assert (rest.status_code, rest.data) == (206, LINES[5:])
    other = caller.call("GET", path, headers={"range": "bytes=5-", "if-range": '"file-other"'})
    assert (other.status_code, other.data) == (200, LINES)


def test_range_beyond_the_file_is_refused(caller: Caller):
    response = caller.call("GET", f"/v1/files/{caller.upload_id()}/content", headers={"range": "bytes=9999-"})
    assert error_of(response) == (416, "range_not_satisfiable", None)
    assert response.headers["content-range"] == f"bytes */{len(LINES)}"


def test_head_tells_the_size_and_sends_nothing(caller: Caller):
    response = caller.call("HEAD", f"/v1/files/{caller.upload_id()}/content")
    assert (response.status_code, response.headers["content-length"], response.data) == (200, str(len(LINES)), b"")


def test_empty_file_is_kept(caller: Caller):
    content = caller.call("GET", f"/v1/files/{caller.upload_id(b'')}/content")
    assert (content.status_code, content.data, content.headers["content-length"]) == (200, b"", "0")


def test_key_is_checked(caller: Caller):
    caller.headers = {"authorization": "Bearer sk-wrong"}
    for method, path in (("POST", ""), ("GET", ""), ("GET", "/file-x"), ("GET", "/file-x/content"), ("DELETE", "/x")):
        response = caller.call(method, f"/v1/files{path}")
        assert (response.status_code, response.json["error"]["code"]) == (401, "invalid_api_key")
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["x-request-id"]


def test_files_take_nothing_of_the_callers_limits(client: FlaskClient, redis: Redis):
    caller = Caller(client, redis, rpm=1)
    path = f"/v1/files/{caller.upload_id()}"
    calls = [("GET", "/v1/files"), ("GET", path), ("GET", f"{path}/content"), ("DELETE", path)]
    assert [caller.call(method, url).status_code for method, url in calls] == [200] * 4
    assert not redis.exists(keys.recent_requests(caller.key.id))


def test_browsers_may_ask_before_they_call(caller: Caller):
    for path in ("/v1/files", "/v1/files/file-x", "/files/file-x/content"):
        response = caller.client.open(path, method="OPTIONS")
        assert response.status_code == 204
        assert "DELETE" in response.headers["access-control-allow-methods"]


def test_other_methods_are_refused(caller: Caller):
    response = caller.call("PUT", "/v1/files")
    assert (response.status_code, response.json["error"]["code"]) == (405, "method_not_allowed")


class BrokenStore(DirectoryStore):
    """Fails as a full disk or a peer that is away does."""

    def __init__(self, directory: Path, error: Exception) -> None:
        super().__init__(directory)
        self.error = error

    def put(self, name: str, data: bytes) -> None:
        raise self.error

    def get(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(FileStoreFull("full"), 507, "insufficient_storage"), (FileStoreDown("away"), 503, "file_store_unavailable")],
)
def test_store_that_fails_is_told(
    caller: Caller, files: Files, redis: Redis, tmp_path: Path, error: Exception, status: int, code: str
):
    file_id = caller.upload_id()
    files.store = BrokenStore(tmp_path / "files", error)
    for response in (caller.upload(), caller.call("GET", f"/v1/files/{file_id}/content")):
        assert error_of(response) == (status, code, None)
        assert response.json["error"]["type"] == "server_error"
    assert redis.zcard("farm:files") == 1


def test_store_that_fails_is_told_to_operators(redis: Redis, redis_url: str, tmp_path: Path):
    (tmp_path / "files").write_text("where the directory should be")
    front = create_app(Settings(redis_url=redis_url, data_dir=str(tmp_path)))
    assert error_of(Caller(front.test_client(), redis).upload()) == (503, "file_store_unavailable", None)
    assert read_health(redis).state == "away"


def test_store_that_fails_does_not_keep_a_file_from_being_deleted(caller: Caller, files: Files):
    file_id = caller.upload_id()
    files.store.delete(part_name(file_id, 0))
    assert error_of(caller.call("GET", f"/v1/files/{file_id}/content")) == (500, "file_content_missing", None)
    assert caller.call("DELETE", f"/v1/files/{file_id}").status_code == 200


def test_error_has_no_content_of_the_file(
    caller: Caller, files: Files, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    files.store = BrokenStore(tmp_path, FileStoreDown("away"))
    response = caller.upload(b"a secret prompt")
    assert "secret prompt" not in json.dumps(response.json) + caplog.text
