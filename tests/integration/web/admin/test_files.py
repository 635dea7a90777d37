"""The admin API shows and deletes the files of all keys."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared.api_keys.store import ApiKeys
from shared.files.file_store import Files
from shared.observability.audit_log import AuditLog
from web.services import EXTENSION

ADMIN = "an-admin-token-for-tests"
HEADERS = {"authorization": f"Bearer {ADMIN}"}


@pytest.fixture
def app(start_app: Callable[..., Flask], tmp_path: Path, redis: Redis) -> Flask:
    app = start_app(data_dir=str(tmp_path), admin_token=ADMIN)
    app.extensions[EXTENSION].admin_tokens.store_configured(ADMIN)
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def files(app: Flask) -> Files:
    files: Files = app.extensions[EXTENSION].files
    return files


def get(client: FlaskClient, path: str) -> dict:
    response = client.get(f"/admin/api/v1{path}", headers=HEADERS)
    assert response.status_code == 200, response.text
    return response.json


def upload(files: Files, key_id: str) -> str:
    with files.create() as writer:
        writer.write(b"{}")
        return files.commit(writer, key_id, "a.jsonl", "batch").id


def test_files_of_all_keys_are_listed_in_pages(client: FlaskClient, files: Files, redis: Redis):
    _, key = ApiKeys(redis).create("books")
    ids = [upload(files, key_id) for key_id in (key.id, "other", key.id)]
    page = get(client, "/files?limit=2")
    assert ([file["id"] for file in page["data"]], page["next"], page["total"]) == ([ids[2], ids[1]], ids[1], 3)
    assert [file["key_name"] for file in page["data"]] == ["books", ""]
    rest = get(client, f"/files?limit=2&cursor={page['next']}")
    assert ([file["id"] for file in rest["data"]], rest["next"]) == ([ids[0]], None)
    own = get(client, f"/files?key={key.id}")
    assert ([file["id"] for file in own["data"]], own["total"]) == ([ids[2], ids[0]], 2)
    assert get(client, "/files?purpose=batch_output")["data"] == []
    assert client.get("/admin/api/v1/files?cursor=file-x", headers=HEADERS).status_code == 404


def test_file_is_shown_and_deleted(client: FlaskClient, files: Files, redis: Redis, tmp_path: Path):
    file_id = upload(files, "k1")
    assert get(client, f"/files/{file_id}")["filename"] == "a.jsonl"
    assert client.delete(f"/admin/api/v1/files/{file_id}", headers=HEADERS).status_code == 204
    assert list((tmp_path / "files").iterdir()) == []
    assert "file.remove" in [entry.action for entry in AuditLog(redis).read_newest_first()]
    for method in ("GET", "DELETE"):
        response = client.open(f"/admin/api/v1/files/{file_id}", method=method, headers=HEADERS)
        assert response.status_code == 404
