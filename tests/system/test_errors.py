"""What a caller sees when something is wrong: the contract's errors, in OpenAI's shape, and nothing left behind."""

import json
import socket
import threading
import time

import pytest
import requests

from shared.redis_connection.client import connect
from tests.system.farm import KEY, Farm, chat_body, events
from tests.waiting import eventually


def shape(answer: requests.Response) -> tuple[int, str]:
    """Status and code; the shape is checked on the way."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, error["code"]


def left_behind(farm: Farm) -> list[bytes]:
    """Jobs, executions and bodies in Redis, but for failed jobs, which are kept a while without their bodies."""
    redis = connect(farm.redis_url())
    failed = {b"rq:job:" + one for one in redis.zrange("rq:failed:chat:default", 0, -1)}
    jobs = set(redis.scan_iter("rq:job:*")) - failed
    return [*jobs, *redis.scan_iter("farm:body:*"), *redis.scan_iter("rq:execution:*")]


def raw(farm: Farm, data: bytes) -> socket.socket:
    """A connection on which those bytes were sent."""
    client = socket.create_connection(("127.0.0.1", farm.port))
    client.sendall(data)
    return client


def request_bytes(body: bytes, length: int | None = None) -> bytes:
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
def test_a_bad_body_is_a_400(strict: Farm, body: bytes, code: str):
    assert shape(strict.post("/v1/chat/completions", data=body)) == (400, code)


@pytest.mark.parametrize("key", ["", "sk-wrong", "sk-system-test-012345678"])
def test_a_wrong_key_is_a_401(strict: Farm, key: str):
    assert shape(strict.post("/v1/chat/completions", chat_body(), key=key)) == (401, "invalid_api_key")
    assert shape(strict.get("/v1/models", key=key)) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/nope", (404, "unknown_url")),
        ("GET", "/", (404, "unknown_url")),
        ("GET", "/v1/chat/completions", (405, "method_not_allowed")),
        ("DELETE", "/v1/models", (405, "method_not_allowed")),
    ],
)
def test_unknown_paths_and_methods_have_the_same_shape(strict: Farm, method: str, path: str, expected):
    assert shape(requests.request(method, strict.url + path, timeout=10)) == expected


def test_a_body_that_is_too_large_is_a_413(strict: Farm):
    assert shape(strict.post("/v1/chat/completions", data=b"x" * 3_000_000)) == (413, "request_too_large")
    chunked = strict.post("/v1/chat/completions", data=(b"x" * 1000 for _ in range(3000)))
    assert shape(chunked) == (413, "request_too_large")


@pytest.mark.parametrize(
    "data",
    [
        b"POST /v1/chat/compl",
        request_bytes(b'{"model": "m", ', length=500),
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_a_client_that_sends_half_and_leaves_leaves_nothing(strict: Farm, data: bytes):
    raw(strict, data).close()
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
def test_a_request_that_can_not_be_read_is_an_error_of_the_same_shape(strict: Farm, data: bytes, status: int):
    client = raw(strict, data)
    head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    client.close()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"x-request-id: req_" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_a_full_queue_is_a_429_with_a_time_to_wait(strict: Farm):
    strict.upstream.pace(delay=1.2)
    statuses = []

    def ask() -> None:
        statuses.append(strict.chat())

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    full = [answer for answer in statuses if answer.status_code == 429 and "full" in answer.text]
    assert len(full) == 3
    assert shape(full[0]) == (429, "queue_full")
    assert 1 <= int(full[0].headers["retry-after"]) <= 60
    assert left_behind(strict) == []


def test_nobody_waits_longer_than_the_queue_allows(strict: Farm):
    strict.upstream.pace(chunks=10, chunk_delay=0.5)
    first = raw(strict, request_bytes(json.dumps(chat_body(stream=True)).encode()))
    eventually(lambda: strict.upstream.counters()["in_flight"] == 1)
    answer = strict.chat()
    first.close()
    assert shape(answer) == (429, "queue_timeout")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    eventually(lambda: left_behind(strict) == [])


def test_a_stream_that_waits_is_kept_alive_by_comments(strict: Farm):
    strict.upstream.pace(delay=1.4, chunks=2, chunk_delay=0.8)
    found = events(strict.chat(stream=True))
    assert found[0] == ": keep-alive"
    assert found[-1] == "[DONE]"
    data = [i for i, event in enumerate(found) if event.startswith("{")]
    assert ": keep-alive" in found[data[0] : data[-1]]


def test_an_upstream_that_does_not_answer_is_a_504(strict: Farm):
    strict.upstream.faults(hang_headers=1)
    assert shape(strict.chat()) == (504, "upstream_first_byte_timeout")
    eventually(lambda: strict.upstream.counters()["in_flight"] == 0, within=3)


def test_a_stream_that_falls_silent_says_that_it_is_not_whole(strict: Farm):
    strict.upstream.faults(hang_stream=1)
    found = events(strict.chat("some words", stream=True))
    assert json.loads(found[-1])["error"]["code"] == "upstream_idle_timeout"
    assert "[DONE]" not in found


def test_a_stream_that_is_cut_says_so(strict: Farm):
    strict.upstream.faults(cut=1)
    found = events(strict.chat("some words", stream=True))
    assert json.loads(found[-1])["error"]["code"] == "upstream_eof"
    assert "[DONE]" not in found


def test_an_answer_that_is_cut_is_never_half_a_json(strict: Farm):
    strict.upstream.faults(cut=1)
    assert shape(strict.chat()) == (502, "upstream_eof")


@pytest.mark.parametrize(
    ("fault", "expected"), [("rate_limit", (429, "rate_limit_exceeded")), ("server_error", (500, "server_error"))]
)
def test_the_upstreams_own_last_error_is_passed_on(strict: Farm, fault: str, expected):
    strict.upstream.faults(**{fault: 1})
    answer = strict.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == expected
    assert answer.headers["x-farm-attempts"] == "1"


def test_a_fresh_token_that_is_refused_is_not_the_callers_401(strict: Farm):
    strict.upstream.faults(expired=1)
    assert shape(strict.chat()) == (502, "upstream_auth_failed")


def test_without_any_account_a_request_is_refused_at_once(strict: Farm):
    (credential,) = strict.credentials()
    strict.command("credentials", "disable", credential["id"])
    eventually(lambda: strict.chat().status_code == 503, within=5)
    answer = strict.chat()
    assert shape(answer) == (503, "no_credentials")
    assert requests.get(strict.url + "/readyz", timeout=10).status_code in (200, 503)


def test_faults_before_the_first_byte_are_not_seen_by_a_caller(farm: Farm):
    farm.upstream.faults(seed=3, server_error=0.15, rate_limit=0.1, retry_after=0.2, expired=0.1)
    answers = [farm.chat(f"text {i}") for i in range(40)]
    assert {answer.status_code for answer in answers} == {200}
    assert max(int(answer.headers["x-farm-attempts"]) for answer in answers) > 1
    assert farm.upstream.counters()["collisions"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_leaves_frees_its_worker(farm: Farm, stream: bool):
    farm.upstream.pace(delay=30 if not stream else 0, chunks=1000, chunk_delay=0.05)
    client = raw(farm, request_bytes(json.dumps(chat_body(stream=stream)).encode()))
    eventually(lambda: farm.upstream.counters()["in_flight"] == 1)
    if stream:
        assert client.recv(100)
    client.close()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0, within=2)
    eventually(lambda: left_behind(farm) == [], within=3)


def test_a_caller_that_leaves_the_queue_takes_its_request_along(farm: Farm):
    farm.upstream.pace(delay=60)
    accounts = len(farm.credentials())
    asking = request_bytes(json.dumps(chat_body()).encode())
    running = [raw(farm, asking) for _ in range(accounts)]
    eventually(lambda: farm.upstream.counters()["in_flight"] == accounts)
    client = raw(farm, asking)
    eventually(lambda: farm.live_pool()["queue_depth"]["interactive"] == 1)
    client.close()
    eventually(lambda: farm.live_pool()["queue_depth"]["interactive"] == 0)
    for one in running:
        one.close()
    eventually(lambda: left_behind(farm) == [])
    assert farm.upstream.counters()["served"] == accounts
