"""The page Files, and the admin API behind it."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.api_keys.store import ApiKeys
from tests.console_batches import add_batch
from tests.console_content import HOSTILE
from tests.console_files import MB, add_file, fill_files
from tests.integration.web.console.conftest import LogIn
from tests.integration.web.console.test_cost import count_commands
from web.console.files import pages
from web.services import EXTENSION


@pytest.fixture
def key_ids(redis: Redis) -> list[str]:
    return [ApiKeys(redis).create(name)[1].id for name in ("translator", "reader")]


def test_files_are_shown_with_their_keys_and_batches(admin: FlaskClient, redis: Redis, key_ids: list[str]):
    read, made, unused = fill_files(redis, key_ids, HOSTILE)
    batch = redis.hget(keys.file(read), "batch").decode()
    page = admin.get("/admin/files").text
    assert all(f"/admin/files/{each}" in page for each in (read, made, unused))
    assert page.count(f"/admin/batches/{batch}") == 2
    for text in ("translator", "reader", "3.0 MB", "950 MB", "<td>input</td>", "<td>output</td>"):
        assert text in page
    assert HOSTILE not in page and HOSTILE not in admin.get(f"/admin/files/{read}").text
    assert f"/admin/batches/{batch}" in admin.get(f"/admin/files/{made}").text
    assert "none has used it" in admin.get(f"/admin/files/{unused}").text
    shown = admin.get(f"/admin/batches/{batch}").text
    assert f"/admin/files/{read}" in shown
    redis.delete(keys.file(read))
    shown = admin.get(f"/admin/batches/{batch}").text
    assert f"/admin/files/{read}" not in shown and "no longer stored" in shown


def test_file_that_is_kept_for_its_batch_says_so(admin: FlaskClient, redis: Redis, key_ids: list[str]):
    file_id = add_file(redis, key_ids[0], "in.jsonl")
    add_batch(redis, key_ids[0], input_file_id=file_id)
    assert "after its batch" not in admin.get("/admin/files").text
    redis.hset(keys.file(file_id), "expires_at", 5)
    assert "<td>after its batch</td>" in admin.get("/admin/files").text
    assert "but not before its batch has ended" in admin.get(f"/admin/files/{file_id}").text


def test_files_are_filtered_and_paged(
    admin: FlaskClient, redis: Redis, key_ids: list[str], monkeypatch: pytest.MonkeyPatch
):
    read, made, unused = fill_files(redis, key_ids, "in")
    page = admin.get(f"/admin/files?key={key_ids[1]}").text
    assert (f"/admin/files/{unused}" in page, f"/admin/files/{read}" in page) == (True, False)
    assert "The key stores no file" in admin.get("/admin/files?key=nobody").text
    redis.zadd(keys.FILES, {read: 1, made: 2, unused: 3})
    monkeypatch.setattr(pages, "SHOWN", 2)
    first = admin.get("/admin/files").text
    assert f"/admin/files/{read}" not in first and f"cursor={made}" in first
    assert f"/admin/files/{read}" in admin.get(f"/admin/files?cursor={made}").text


def test_key_that_has_little_room_left_is_told(admin: FlaskClient, app: Flask, redis: Redis, key_ids: list[str]):
    bounds = app.extensions[EXTENSION].files.bounds
    add_file(redis, key_ids[0], "a", int(0.89 * bounds.max_bytes))
    assert "nearly full" not in admin.get("/admin/files").text
    add_file(redis, key_ids[0], "b", int(0.02 * bounds.max_bytes))
    assert "nearly full" in admin.get("/admin/files").text
    add_file(redis, key_ids[0], "c", int(0.1 * bounds.max_bytes))
    page = admin.get("/admin/files").text
    assert "nearly full" not in page and "full: uploads are refused" in page
    assert f"/admin/files?key={key_ids[0]}" in admin.get(f"/admin/keys/{key_ids[0]}").text


def test_key_with_many_small_files_is_told_too(admin: FlaskClient, app: Flask, redis: Redis, key_ids: list[str]):
    bounds = app.extensions[EXTENSION].files.bounds
    redis.zadd(keys.files(key_ids[0]), {f"file-{number}": number for number in range(bounds.max_files - 1)})
    add_file(redis, key_ids[0], "a", 1)
    (use,) = admin.get("/admin/api/v1/file-storage").json["data"]
    assert (use["key_name"], use["files"], use["bytes"], use["share"]) == ("translator", bounds.max_files, 1, 1)


def test_an_administrator_deletes_a_file_and_a_viewer_does_not(
    admin: FlaskClient, log_in: LogIn, redis: Redis, key_ids: list[str]
):
    file_id, viewer = add_file(redis, key_ids[0], "in.jsonl"), log_in("viewer")
    for path in ("/admin/files", f"/admin/files/{file_id}"):
        assert f"/admin/files/{file_id}/delete" in admin.get(path).text
        assert f"/admin/files/{file_id}/delete" not in viewer.get(path).text
    assert viewer.post(f"/admin/files/{file_id}/delete").status_code == 403
    done = admin.post(f"/admin/files/{file_id}/delete", follow_redirects=True)
    assert "The file was deleted" in done.text and "in.jsonl" not in done.text
    assert admin.get(f"/admin/files/{file_id}").status_code == 404
    assert admin.post(f"/admin/files/{file_id}/delete").status_code == 404


def test_further_files_cost_the_page_little(
    admin: FlaskClient, redis: Redis, key_ids: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pages, "SHOWN", 5)
    for number in range(10):
        add_file(redis, key_ids[0], str(number), MB)
    before = count_commands(redis, admin, "/admin/files")
    for number in range(100):
        add_file(redis, key_ids[0], str(number), MB)
    assert count_commands(redis, admin, "/admin/files") <= before + 10
