"""Uploads and downloads over real connections: what is refused early, what breaks off, and what memory they take."""

import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from redis import Redis

from shared.files.part_store import PART_BYTES
from tests.integration.web.server.front_server import FrontServer, build_request, read_all, serve
from tests.integration.web.server.test_http import parse
from tests.integration.web.test_app import Front
from tests.s3_server import run_s3_server
from tests.waiting import eventually
from web.request.body_memory import BodyMemory
from web.server import lingering_close
from web.server.request_input import MAX_BATCH_INPUT_BYTES

TYPE = "content-type: multipart/form-data; boundary=xyz"
HEAD = (
    b'--xyz\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--xyz\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
)
END = b"\r\n--xyz--\r\n"
MB = 1024 * 1024


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def server(redis: Redis, redis_url: str, data_dir: Path) -> Iterator[FrontServer]:
    front = Front(redis, redis_url, data_dir=str(data_dir), body_timeout=1.0)
    with serve(front) as server:
        yield server
    front.close()


@pytest.fixture
def small_server(redis: Redis, redis_url: str, data_dir: Path) -> Iterator[FrontServer]:
    """A front that takes files of 100 KB."""
    front = Front(redis, redis_url, data_dir=str(data_dir), max_file=100_000)
    with serve(front) as server:
        yield server
    front.close()


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that has stopped without closing is waited for only shortly."""
    monkeypatch.setattr(lingering_close, "IDLE_SECONDS", 0.3)


def build_head(server: FrontServer, *headers: str) -> bytes:
    """The head of an upload without a length."""
    request = build_request(server.front.secret, b"", TYPE, *headers, path="/v1/files")
    return request.replace(b"content-length: 0\r\n", b"")


def upload(server: FrontServer, content: bytes) -> str:
    body = HEAD + content + END
    request = build_request(server.front.secret, body, TYPE, "connection: close", path="/v1/files")
    status, _, reply = parse(read_all(server.send(request)))
    assert status == 200, reply
    return reply.partition(b'"id":"')[2].partition(b'"')[0].decode()


def build_download(server: FrontServer, file_id: str) -> bytes:
    head = f"GET /v1/files/{file_id}/content HTTP/1.1\r\nhost: f\r\nconnection: close\r\n"
    return f"{head}authorization: Bearer {server.front.secret}\r\n\r\n".encode()


def count_parts(data_dir: Path) -> int:
    return sum(path.is_file() for path in data_dir.rglob("*"))


def encode_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_upload_that_is_too_large_is_not_asked_for(server: FrontServer):
    head = build_head(server, f"content-length: {10**10}", "expect: 100-continue")
    status, headers, body = parse(read_all(server.send(head)))
    assert (status, headers["connection"], b"file_too_large" in body) == (413, "close", True)


@pytest.mark.parametrize("size", [10**10, MAX_BATCH_INPUT_BYTES + MB])
def test_upload_that_is_too_large_is_refused_by_its_length(server: FrontServer, data_dir: Path, size: int):
    before = count_parts(data_dir)
    connection = server.send(build_head(server, f"content-length: {size}") + HEAD + bytes(MB))
    status, _, body = parse(read_all(connection))
    assert (status, b"file_too_large" in body) == (413, True)
    assert count_parts(data_dir) == before


def test_chunked_upload_is_refused_once_it_is_too_large(small_server: FrontServer, data_dir: Path):
    before = count_parts(data_dir)
    connection = small_server.send(build_head(small_server, "transfer-encoding: chunked") + encode_chunk(HEAD))
    for _ in range(4):
        connection.sendall(encode_chunk(bytes(32 * 1024)))
    status, _, body = parse(read_all(connection))
    assert (status, b"file_too_large" in body) == (413, True)
    assert count_parts(data_dir) == before


def test_chunked_upload_is_taken(small_server: FrontServer):
    connection = small_server.send(build_head(small_server, "transfer-encoding: chunked", "connection: close"))
    for piece in (HEAD[:50], HEAD[50:], b"x" * 90_000, END):
        connection.sendall(encode_chunk(piece))
    connection.sendall(b"0\r\n\r\n")
    status, _, body = parse(read_all(connection))
    assert (status, b'"bytes":90000' in body) == (200, True), body


def test_upload_that_breaks_off_leaves_nothing(server: FrontServer, redis: Redis, data_dir: Path):
    before = count_parts(data_dir)
    connection = server.send(build_head(server, f"content-length: {3 * PART_BYTES}") + HEAD + bytes(PART_BYTES + MB))
    eventually(lambda: count_parts(data_dir) == before + 1)
    connection.close()
    eventually(lambda: count_parts(data_dir) == before)
    assert redis.keys("farm:file:*") == []
    eventually(lambda: server.front.services.file_memory.reserved == 0)


@pytest.mark.parametrize("body", [HEAD + b"{}", HEAD + b"{}" + END])
def test_body_that_is_shorter_than_its_length_is_refused(server: FrontServer, redis: Redis, body: bytes):
    connection = server.send(build_head(server, f"content-length: {len(body) + 100}") + body)
    connection.shutdown(socket.SHUT_WR)
    status, _, reply = parse(read_all(connection))
    assert (status, b"incomplete_body" in reply) == (400, True)
    assert redis.keys("farm:file:*") == []


def test_upload_that_its_key_has_no_room_for_is_refused_by_its_length(redis: Redis, redis_url: str, data_dir: Path):
    front = Front(redis, redis_url, data_dir=str(data_dir), files_bytes=MB)
    with serve(front) as server:
        connection = server.send(build_head(server, f"content-length: {2 * MB}") + HEAD)
        status, _, body = parse(read_all(connection))
        assert (status, b"file_quota_exceeded" in body) == (400, True)
    front.close()


def test_upload_may_take_longer_than_a_request(redis: Redis, redis_url: str, data_dir: Path):
    front = Front(redis, redis_url, data_dir=str(data_dir), total_timeout=0.2)
    with serve(front) as server:
        body = HEAD + b"{}" + END
        head = build_head(server, f"content-length: {len(body)}", "connection: close")
        connection = server.send(head + body[:50])
        gevent.sleep(0.4)
        connection.sendall(body[50:])
        assert parse(read_all(connection))[0] == 200
    front.close()


def test_file_goes_into_a_bucket_and_comes_back(redis: Redis, redis_url: str, tmp_path: Path):
    with run_s3_server(tmp_path) as s3:
        front = Front(redis, redis_url, files_url=s3.build_url())
        with serve(front) as server:
            content = bytes(range(256)) * 20_000
            file_id = upload(server, content)
            assert len(list((s3.directory / "farm" / file_id).iterdir())) == 2
            assert parse(read_all(server.send(build_download(server, file_id))))[2] == content
            authorized = {"authorization": f"Bearer {front.secret}"}
            assert front.client.delete(f"/v1/files/{file_id}", headers=authorized).status_code == 200
            assert [path for path in s3.directory.rglob("*") if path.is_file()] == []
        front.close()


def test_upload_that_comes_too_slowly_is_ended(server: FrontServer, data_dir: Path):
    before = count_parts(data_dir)
    connection = server.send(build_head(server, f"content-length: {3 * PART_BYTES}") + HEAD + bytes(PART_BYTES + MB))
    status, _, body = parse(read_all(connection))
    assert (status, b"request_timeout" in body) == (408, True)
    assert count_parts(data_dir) == before


def test_uploads_wait_for_memory_and_then_are_told_to_come_back(server: FrontServer, monkeypatch: pytest.MonkeyPatch):
    services = server.front.services
    monkeypatch.setattr(services, "file_memory", BodyMemory(2 * PART_BYTES))
    monkeypatch.setattr("web.request.body_memory.WAIT_SECONDS", 0.2)
    services.file_memory.acquire("other", 2 * PART_BYTES)
    request = build_request(server.front.secret, HEAD + bytes(MB) + END, TYPE, "connection: close", path="/v1/files")
    status, headers, body = parse(read_all(server.send(request)))
    assert (status, b"queue_full" in body, headers["retry-after"]) == (429, True, "5")


def test_large_file_takes_little_memory_on_its_way_in_and_out(server: FrontServer):
    """Bytes, not time: 40 MB go through, and the front never holds more than a few parts of them."""
    pieces = 40
    connection = server.connect()
    size = len(HEAD) + pieces * MB + len(END)
    tracemalloc.start()
    try:
        connection.sendall(build_head(server, f"content-length: {size}", "connection: close") + HEAD)
        piece = bytes(MB)
        for _ in range(pieces):
            connection.sendall(piece)
        connection.sendall(END)
        status, _, body = parse(read_all(connection))
        peak_in = tracemalloc.get_traced_memory()[1]
        assert status == 200, body
        file_id = body.partition(b'"id":"')[2].partition(b'"')[0].decode()
        tracemalloc.reset_peak()
        received = 0
        with server.send(build_download(server, file_id)) as download:
            while data := download.recv(65_536):
                received += len(data)
        peak_out = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert received > pieces * MB
    assert peak_in < 4 * PART_BYTES, f"{peak_in / MB:.1f} MB"
    assert peak_out < 2 * PART_BYTES, f"{peak_out / MB:.1f} MB"


def test_download_whose_bytes_are_lost_is_cut_and_not_ended(server: FrontServer, data_dir: Path):
    file_id = upload(server, bytes(PART_BYTES) + b"more")
    (data_dir / "files" / file_id / "000001").unlink()
    received = list[bytes]()
    with server.send(build_download(server, file_id)) as connection, pytest.raises(ConnectionResetError):
        received.extend(iter(lambda: connection.recv(65_536), b""))
    assert parse(b"".join(received))[0] == 200
