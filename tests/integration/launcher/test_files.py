"""`./farm files` shows and removes the files of all keys."""

import json
from pathlib import Path

import pytest
from redis import Redis

from shared.api_keys.store import ApiKeys
from shared.files.opening import open_files
from shared.observability.audit_log import AuditLog
from shared.settings.schema import Settings
from tests.console_batches import add_batch
from tests.integration.launcher.conftest import Run
from web.files.retention import FileRetention


@pytest.fixture
def uploaded(run: Run, redis: Redis, tmp_path: Path) -> tuple[str, str, str]:
    """Ids of a key, of its file, and of another key's."""
    files = open_files(Settings(data_dir=str(tmp_path / "data")), redis)
    _, key = ApiKeys(redis).create("books")
    ids = []
    for key_id, name in ((key.id, "a.jsonl"), ("gone", "b.jsonl")):
        with files.create() as writer:
            writer.write(b"{}")
            ids.append(files.commit(writer, key_id, name, "batch").id)
    return key.id, ids[0], ids[1]


def test_files_of_all_keys_are_listed_with_the_names_of_their_keys(run: Run, uploaded: tuple[str, str, str]):
    key_id, own, other = uploaded
    listed = json.loads(run("files", "list", "--json").stdout)
    assert [(file["id"], file["key_name"], file["bytes"]) for file in listed] == [(other, "", 2), (own, "books", 2)]
    assert [file["id"] for file in json.loads(run("files", "list", "--key", key_id, "--json").stdout)] == [own]
    assert json.loads(run("files", "list", "--purpose", "batch_output", "--json").stdout) == []
    table = run("files", "list").stdout
    assert "KEY NAME" in table and "books" in table
    assert "a.jsonl" in table


def test_file_is_shown_and_removed(run: Run, redis: Redis, tmp_path: Path, uploaded: tuple[str, str, str]):
    key_id, own, other = uploaded
    batch = add_batch(redis, key_id, input_file_id=own)
    shown = json.loads(run("files", "show", own, "--json").stdout)
    assert (shown["filename"], shown["key_name"]) == ("a.jsonl", "books")
    text = run("files", "show", own).stdout
    assert "key_name: books\n" in text and "filename: a.jsonl\n" in text and f"readers: {batch.id}\n" in text
    assert "readers: -\n" in run("files", "show", other).stdout
    assert run("files", "remove", own, other).stdout == f"{own} removed\n{other} removed\n"
    assert list((tmp_path / "data" / "files").iterdir()) == []
    assert run("files", "show", own).exit_code == 1
    assert run("files", "remove", own).exit_code == 1
    assert {entry.action for entry in AuditLog(redis).read_newest_first()} == {"file.remove"}


def test_content_that_the_command_does_not_see_is_deleted_by_a_front(run: Run, redis: Redis, tmp_path: Path):
    files_of_fronts = open_files(Settings(data_dir=str(tmp_path / "elsewhere")), redis)
    with files_of_fronts.create() as writer:
        writer.write(b"{}")
        file_id = files_of_fronts.commit(writer, "k", "a.jsonl", "batch").id
    assert run("files", "remove", file_id).exit_code == 0
    FileRetention(redis, files_of_fronts, "front").delete_due(is_sweeping=False)
    assert list(files_of_fronts.store.list(file_id)) == []


def test_long_name_does_not_stretch_the_table(run: Run, redis: Redis, tmp_path: Path):
    files = open_files(Settings(data_dir=str(tmp_path / "data")), redis)
    for length in (60, 61):
        files.create_from_parts(f"file-{length}", "k", "n" * length, "batch_output", [])
    table = run("files", "list").stdout
    assert f" {'n' * 60} " in table
    assert f" {'n' * 59}… " in table
    assert f"filename: {'n' * 61}\n" in run("files", "show", "file-61").stdout


def test_long_list_is_whole(run: Run, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("launcher.commands.files.PAGE", 2)
    files = open_files(Settings(data_dir=str(tmp_path / "data")), redis)
    for number in range(5):
        files.create_from_parts(f"file-{number}", "k", "o", "batch_output", [])
    assert len(json.loads(run("files", "list", "--json").stdout)) == 5
