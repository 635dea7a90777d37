"""Errors reach the caller in OpenAI's shape, and leave nothing in Redis."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest
import requests

from shared.redis_connection.client import connect
from tests.system.farm import KEY, Farm, chat_body, events
from tests.waiting import eventually


def error_of(response: requests.Response) -> tuple[int, str]:
    """Status and code of an error response, whose shape is checked too."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, error["code"]


def left_behind(farm: Farm) -> list[bytes]:
    """Keys of jobs, executions and bodies in Redis, except failed jobs, which are kept for a while without bodies."""
    redis = connect(farm.redis_url())
    failed = {b"rq:job:" + job_id for job_id in redis.zrange("rq:failed:chat:default", 0, -1)}
    jobs = set(redis.scan_iter("rq:job:*")) - failed
    return [*jobs, *redis.scan_iter("farm:body:*"), *redis.scan_iter("rq:execution:*")]


def send_bytes(farm: Farm, data: bytes) -> socket.socket:
    """A connection on which these bytes were sent."""
    client = socket.create_connection(("127.0.0.1", farm.port))
    client.sendall(data)
    return client


def build_http_request(body: bytes, length: int | None = None) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: "
    return f"{head}{len(body) if length is None else length}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b"null", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b'{"messages": []}', "missing_required_parameter"),
        (b'{"model": 7, "messages": []}', "invalid_type"),
        (b'{"model": "m", "stream": "yes"}', "invalid_type"),
    ],
)
def test_invalid_body_is_a_400(strict: Farm, body: bytes, code: str):
    assert error_of(strict.post("/v1/chat/completions", data=body)) == (400, code)


@pytest.mark.parametrize("key", ["", "sk-wrong", "sk-system-test-012345678"])
def test_wrong_key_is_a_401(strict: Farm, key: str):
    assert error_of(strict.post("/v1/chat/completions", chat_body(), key=key)) == (401, "invalid_api_key")
    assert error_of(strict.get("/v1/models", key=key)) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/nope", (404, "unknown_url")),
        ("POST", "/", (405, "method_not_allowed")),
        ("GET", "/v1/chat/completions", (405, "method_not_allowed")),
        ("DELETE", "/v1/models", (405, "method_not_allowed")),
    ],
)
def test_unknown_paths_and_methods_are_errors_of_the_same_shape(strict: Farm, method: str, path: str, expected):
    assert error_of(requests.request(method, strict.url + path, timeout=10)) == expected


def test_body_that_is_too_large_is_a_413(strict: Farm):
    assert error_of(strict.post("/v1/chat/completions", data=b"x" * 3_000_000)) == (413, "request_too_large")
    chunked = strict.post("/v1/chat/completions", data=(b"x" * 1000 for _ in range(3000)))
    assert error_of(chunked) == (413, "request_too_large")


@pytest.mark.parametrize(("key", "expected"), [(KEY, (413, "request_too_large")), ("wrong", (401, "invalid_api_key"))])
def test_early_reply_reaches_a_client_that_closes_after_it(strict: Farm, key: str, expected: tuple[int, str]):
    # urllib sends `Connection: close`, and reads nothing before it has sent everything.
    request = urllib.request.Request(strict.url + "/v1/chat/completions", data=b"x" * 20_000_000)
    request.add_header("authorization", f"Bearer {key}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert (caught.value.code, json.load(caught.value)["error"]["code"]) == expected


@pytest.mark.parametrize("path", ["/admin/login", "/admin/api/v1/keys", "/v1/models", "/healthz"])
def test_form_without_a_key_is_a_413_before_it_is_read(strict: Farm, path: str):
    client = send_bytes(strict, f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n".encode())
    assert client.recv(65_536).startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 405 "))
    client.close()


def test_chunked_form_is_a_413(strict: Farm):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    form = (b"a&" * 1000 for _ in range(1000))
    response = requests.post(strict.url + "/admin/login", data=form, headers=headers, timeout=30)
    assert error_of(response) == (413, "request_too_large")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/admin/login"])
def test_body_that_does_not_arrive_is_a_408(strict: Farm, path: str):
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 100\r\n"
    form = "content-type: application/x-www-form-urlencoded\r\n\r\ntoken="
    client = send_bytes(strict, (head + form).encode())
    client.settimeout(30)
    head_sent, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head_sent.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "request_timeout"
    client.close()


@pytest.mark.parametrize(
    "data",
    [
        b"POST /v1/chat/compl",
        build_http_request(b'{"model": "m", ', length=500),
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_client_that_disconnects_mid_request_leaves_nothing(strict: Farm, data: bytes):
    send_bytes(strict, data).close()
    assert strict.chat().status_code == 200
    assert left_behind(strict) == []
    assert "Traceback" not in strict.log()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (
            b"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer " + KEY.encode() + b"\r\n"
            b"transfer-encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
    ],
)
def test_unreadable_request_is_an_error_of_the_same_shape(strict: Farm, data: bytes, status: int):
    client = send_bytes(strict, data)
    head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    client.close()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"x-request-id: req_" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_full_queue_is_a_429_with_retry_after(strict: Farm):
    strict.upstream.pace(delay=3)
    responses = []

    def send() -> None:
        responses.append(strict.chat())

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    full = [response for response in responses if response.status_code == 429 and "full" in response.text]
    assert len(full) == 3
    assert error_of(full[0]) == (429, "queue_full")
    assert 1 <= int(full[0].headers["retry-after"]) <= 60
    assert left_behind(strict) == []


def test_queue_timeout_is_a_429(strict: Farm):
    strict.upstream.pace(chunks=200, chunk_delay=0.5)
    first = send_bytes(strict, build_http_request(json.dumps(chat_body(stream=True)).encode()))
    eventually(lambda: strict.upstream.counters()["in_flight"] == 1)
    response = strict.chat()
    first.close()
    assert error_of(response) == (429, "queue_timeout")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    eventually(lambda: left_behind(strict) == [])


def test_waiting_stream_is_kept_alive_by_comments(strict: Farm):
    strict.upstream.pace(delay=1.4, chunks=2, chunk_delay=0.8)
    received = events(strict.chat(stream=True))
    assert received[0] == ": keep-alive"
    assert received[-1] == "[DONE]"
    data = [i for i, event in enumerate(received) if event.startswith("{")]
    assert ": keep-alive" in received[data[0] : data[-1]]


def test_upstream_that_does_not_respond_is_a_504(strict: Farm):
    strict.upstream.faults(hang_headers=1)
    assert error_of(strict.chat()) == (504, "upstream_first_byte_timeout")
    eventually(lambda: strict.upstream.counters()["in_flight"] == 0)


def test_silent_stream_ends_with_an_error_event(strict: Farm):
    strict.upstream.faults(hang_stream=1)
    received = events(strict.chat("some words", stream=True))
    assert json.loads(received[-1])["error"]["code"] == "upstream_idle_timeout"
    assert "[DONE]" not in received


def test_truncated_stream_ends_with_an_error_event(strict: Farm):
    strict.upstream.faults(cut=1)
    received = events(strict.chat("some words", stream=True))
    assert json.loads(received[-1])["error"]["code"] == "upstream_eof"
    assert "[DONE]" not in received


def test_truncated_json_response_is_a_502(strict: Farm):
    strict.upstream.faults(cut=1)
    assert error_of(strict.chat()) == (502, "upstream_eof")


@pytest.mark.parametrize(
    ("fault", "expected"), [("rate_limit", (429, "rate_limit_exceeded")), ("server_error", (500, "server_error"))]
)
def test_last_error_of_the_upstream_is_passed_on(strict: Farm, fault: str, expected):
    strict.upstream.faults(**{fault: 1})
    response = strict.chat()
    assert (response.status_code, response.json()["error"]["code"]) == expected
    assert response.headers["x-farm-attempts"] == "1"


def test_refused_fresh_token_is_a_502_and_not_a_401(strict: Farm):
    strict.upstream.faults(expired=1)
    assert error_of(strict.chat()) == (502, "upstream_auth_failed")


def test_request_without_any_active_credential_is_a_503_at_once(strict: Farm):
    (credential,) = strict.credentials()
    strict.command("credentials", "disable", credential["id"])
    eventually(lambda: strict.chat().status_code == 503)
    response = strict.chat()
    assert error_of(response) == (503, "no_credentials")
    eventually(lambda: requests.get(strict.url + "/readyz", timeout=10).status_code == 503)
    assert requests.get(strict.url + "/readyz", timeout=10).json()["reasons"] == ["no worker is running"]


def test_faults_before_the_first_byte_are_hidden_by_retries(farm: Farm):
    farm.upstream.faults(seed=3, server_error=0.15, rate_limit=0.1, retry_after=0.2, expired=0.1)
    responses = [farm.chat(f"text {i}") for i in range(40)]
    assert {response.status_code for response in responses} == {200}
    assert max(int(response.headers["x-farm-attempts"]) for response in responses) > 1
    assert farm.upstream.counters()["collisions"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_caller_who_leaves_frees_the_worker(farm: Farm, stream: bool):
    farm.upstream.pace(delay=120 if not stream else 0, chunks=2400, chunk_delay=0.05)
    client = send_bytes(farm, build_http_request(json.dumps(chat_body(stream=stream)).encode()))
    eventually(lambda: farm.upstream.counters()["in_flight"] == 1)
    if stream:
        assert client.recv(100)
    client.close()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    eventually(lambda: left_behind(farm) == [])


def test_caller_who_only_ends_its_sending_gets_the_reply(farm: Farm):
    farm.upstream.pace(delay=0.5)
    client = send_bytes(farm, build_http_request(json.dumps(chat_body()).encode()))
    client.shutdown(socket.SHUT_WR)
    reply = b"".join(iter(lambda: client.recv(65_536), b""))
    client.close()
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b'"choices"' in reply


def test_caller_who_leaves_the_queue_withdraws_the_request(farm: Farm):
    farm.upstream.pace(delay=60)
    accounts = len(farm.credentials())
    request = build_http_request(json.dumps(chat_body()).encode())
    running = [send_bytes(farm, request) for _ in range(accounts)]
    eventually(lambda: farm.upstream.counters()["in_flight"] == accounts)
    client = send_bytes(farm, request)
    eventually(lambda: farm.live_pool()["queue_depth"]["interactive"] == 1)
    client.close()
    eventually(lambda: farm.live_pool()["queue_depth"]["interactive"] == 0)
    for connection in running:
        connection.close()
    eventually(lambda: left_behind(farm) == [])
    assert farm.upstream.counters()["served"] == accounts
