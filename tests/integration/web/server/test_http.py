"""Requests in the forms that callers, and proxies in front of the farm, really send."""

import gzip
import json
import socket
import zlib
from collections.abc import Callable

import pytest

from shared.protocol.messages import Frame, FrameKind, Head
from tests.integration.web.server.front_server import FrontServer, build_request, read_all, replying
from tests.waiting import eventually
from web.server.http_options import MAX_HEADER_BYTES

BODY = json.dumps({"model": "m", "messages": []}).encode()
CLOSE = "Connection: close"


def exchange(server: FrontServer, *headers: str, body: bytes = BODY, version: str = "1.1") -> tuple[int, dict, bytes]:
    """Status, headers and body of the reply to a chat request; the connection has to be closed after it."""
    with replying(server.front):
        reply = read_all(server.send(build_request(server.front.secret, body, *headers, version=version)))
    return parse(reply.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))


def parse(reply: bytes) -> tuple[int, dict, bytes]:
    head, _, body = reply.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status_line.split()[1]), {name.lower(): value for name, value in headers.items()}, body


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([CLOSE], id="close"),
        pytest.param(["Connection: TE, Close", "TE: trailers"], id="close among other options"),
        pytest.param(
            ["Connection: close, Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA"], id="h2c"
        ),
        pytest.param(["Connection: upgrade, close"], id="upgrade without Upgrade"),
        pytest.param(["Expect: 100-Continue", CLOSE], id="expect"),
        pytest.param(
            ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: off", "X-Forwarded-Proto: http", CLOSE], id="schemes"
        ),
        pytest.param(["SCRIPT_NAME: /x", "PATH_INFO: /y", CLOSE], id="headers of the environment"),
        pytest.param(
            ["X-Forwarded-For: unknown, [::1, \xff", "X-Forwarded-Host: [", "Forwarded: for=_x", CLOSE], id="hops"
        ),
        pytest.param(["Idempotency-Key: \xff", "OpenAI-Beta: \xe9", "Accept-Language: de;q=\xb2", CLOSE], id="latin-1"),
        pytest.param(["api-key: \xff", "x-api-key: b", "x-farm-pool: \xff", CLOSE], id="other keys"),
        pytest.param(["Content-Type: \xe9; boundary", CLOSE], id="content type"),
        pytest.param(["Cookie: " + "c" * 8000, "traceparent: x", "Content-Encoding: identity", CLOSE], id="cookies"),
    ],
)
def test_odd_headers_break_no_request(server: FrontServer, headers: list[str]):
    assert exchange(server, *headers)[0] == 200


@pytest.mark.parametrize("host", ["", "a" * 70, "a..b", "ex ample", "[::1", "a:b:c", ",", "\xe9", "under_score:8000"])
def test_odd_host_breaks_no_request(server: FrontServer, host: str):
    request = build_request(server.front.secret, BODY, CLOSE).replace(b"farm.example", host.encode("latin-1"))
    with replying(server.front):
        assert parse(read_all(server.send(request)))[0] == 200


@pytest.mark.parametrize("headers", [[], ["Expect: 100-continue"], ["Connection: close"]])
def test_http_1_0_gets_a_reply_that_ends_with_the_connection(server: FrontServer, headers: list[str]):
    status, replied, body = exchange(server, *headers, version="1.0")
    assert (status, body) == (200, b"{}")
    assert "transfer-encoding" not in replied


def test_stream_to_http_1_0_is_not_chunked(server: FrontServer):
    body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
    connection = server.send(build_request(server.front.secret, body, version="1.0"))
    server.front.reply(200, "text/event-stream", b"data: {}\n\n", b"data: [DONE]\n\n")
    status, replied, events = parse(read_all(connection))
    assert (status, events) == (200, b"data: {}\n\ndata: [DONE]\n\n")
    assert "transfer-encoding" not in replied


def test_expectation_is_met_before_a_large_body(server: FrontServer):
    body = json.dumps({"model": "m", "messages": [{"content": 2_000_000 * "x"}]}).encode()
    head, _, rest = build_request(server.front.secret, body, "Expect: 100-continue", CLOSE).partition(b"\r\n\r\n")
    connection = server.send(head + b"\r\n\r\n")
    interim = connection.recv(65_536)
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    with replying(server.front):
        connection.sendall(rest)
        assert parse(read_all(connection))[0] == 200


def test_connection_is_kept_after_an_expectation(server: FrontServer):
    head, _, body = build_request(server.front.secret, BODY, "Expect: 100-continue").partition(b"\r\n\r\n")
    connection = server.send(head + b"\r\n\r\n" + body)
    with replying(server.front):
        eventually(lambda: connection.recv(65_536, socket.MSG_PEEK).endswith(b"{}"))
        connection.sendall(build_request(server.front.secret, BODY, CLOSE))
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize(("secret", "size", "status"), [("sk-wrong", 100, 401), ("", 10**10, 413)])
def test_body_that_a_refused_caller_would_send_is_not_asked_for(
    server: FrontServer, secret: str, size: int, status: int
):
    request = build_request(secret or server.front.secret, b"", "Expect: 100-continue")
    reply = read_all(server.send(request.replace(b"content-length: 0", f"content-length: {size}".encode())))
    replied, headers, _ = parse(reply)
    assert (replied, headers["connection"]) == (status, "close")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Expect: the impossible"], 417),
        (["Content-Type: application/json", "Content-Type: text/plain"], 400),
        (["Content-Length: 5"], 400),
        (["X: " + MAX_HEADER_BYTES * "x"], 431),
    ],
)
def test_unreadable_head_is_an_error_in_openais_shape(server: FrontServer, headers: list[str], status: int):
    replied, _, body = exchange(server, *headers)
    assert (replied, json.loads(body)["error"]["code"]) == (status, "unreadable_request")


def test_longest_refresh_token_fits_into_a_header(server: FrontServer):
    status, _, body = parse(read_all(server.send(build_request(16_384 * "x", BODY, CLOSE))))
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


def test_early_reply_reaches_a_slow_sender_that_closes_after_it(server: FrontServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("web.server.lingering_close.IDLE_SECONDS", 20)
    body = bytes(300_000)
    request = build_request("wrong", body, CLOSE)
    connection = server.send(request[:1000])
    eventually(lambda: connection.recv(5) == b"HTTP/")
    for start in range(1000, len(request), 50_000):
        connection.sendall(request[start : start + 50_000])
    assert b'"invalid_api_key"' in read_all(connection)


@pytest.mark.parametrize("path", ["/", "/v1", "/healthz", "/v1/models"])
def test_head_is_replied_to_without_a_body_and_leaves_the_connection_usable(server: FrontServer, path: str):
    server.front.redis.set("farm:models:default", b'["a"]', ex=7 * 86_400)
    lines = [f"HEAD {path} HTTP/1.1", "host: x", f"authorization: Bearer {server.front.secret}"]
    get = [lines[0].replace("HEAD", "GET"), *lines[1:], CLOSE]
    data = b"".join("\r\n".join(part).encode() + b"\r\n\r\n" for part in (lines, get))
    head, _, rest = read_all(server.send(data)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    status, _, body = parse(rest)
    assert (status, bool(json.loads(body))) == (200, True)


@pytest.mark.parametrize("target", ["*", "/v1/chat/completions", "/v1/nope", "/v1/responses/resp_1"])
def test_preflight_needs_no_key(server: FrontServer, target: str):
    headers = "origin: https://x\r\naccess-control-request-method: DELETE\r\naccess-control-request-headers: \xff, a"
    data = f"OPTIONS {target} HTTP/1.1\r\nhost: x\r\n{headers}\r\n{CLOSE}\r\n\r\n".encode("latin-1")
    status, replied, body = parse(read_all(server.send(data)))
    assert (status, body, replied["access-control-allow-origin"]) == (204, b"", "*")
    assert {"GET", "POST", "DELETE"} <= set(replied["access-control-allow-methods"].split(", "))


@pytest.mark.parametrize(
    ("coding", "compress"),
    [pytest.param("gzip", gzip.compress, id="gzip"), pytest.param("deflate", zlib.compress, id="deflate")],
)
def test_compressed_body_is_served(server: FrontServer, coding: str, compress: Callable[[bytes], bytes]):
    connection = server.send(build_request(server.front.secret, compress(BODY), CLOSE, f"Content-Encoding: {coding}"))
    queue = server.front.services.request_services.queue
    eventually(lambda: queue.count_waiting("default") == 1)
    (request_id,) = server.front.redis.lrange("rq:queue:chat:default", 0, -1)
    assert server.front.redis.get(f"farm:body:{request_id.decode()}") == BODY
    server.front.reply(200, "application/json", b"{}")
    assert parse(read_all(connection))[0] == 200


def test_transfer_coding_is_undone_like_a_content_coding(server: FrontServer):
    packed = gzip.compress(BODY)
    request = build_request(server.front.secret, b"", "Transfer-Encoding: gzip, chunked", CLOSE)
    request = request.replace(b"content-length: 0\r\n", b"") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    with replying(server.front):
        assert parse(read_all(server.send(request)))[0] == 200


def test_unknown_coding_is_a_415_that_names_the_known_ones(server: FrontServer):
    status, replied, body = exchange(server, "Content-Encoding: sdch", CLOSE)
    assert (status, json.loads(body)["error"]["code"]) == (415, "unsupported_media_type")
    assert replied["accept-encoding"].startswith("gzip, deflate")


def test_bomb_is_a_413(server: FrontServer):
    bomb = gzip.compress(bytes(server.front.services.settings.max_body + 1), 1)
    assert exchange(server, "Content-Encoding: gzip", CLOSE, body=bomb)[0] == 413


@pytest.mark.parametrize("value", ["a\r\nx: y", "\x00", "caf\u20ac", "\x1f", "\ud800"])
def test_upstreams_odd_headers_do_not_break_the_reply(server: FrontServer, value: str):
    connection = server.send(build_request(server.front.secret, BODY, CLOSE))
    queue = server.front.services.request_services.queue
    eventually(lambda: queue.count_waiting("default") == 1)
    request_id = server.front.redis.lpop("rq:queue:chat:default").decode()
    head = Head(200, {"content-type": "application/json", "openai-model": value, "retry-after": "soon"})
    frames = [Frame(FrameKind.HEAD, 0, head.encode()), Frame(FrameKind.DATA, 1, b"{}"), Frame(FrameKind.END, 2)]
    channel = server.front.services.hub.channel(request_id)
    server.front.redis.publish(channel, b"".join(frame.encode() for frame in frames))
    status, replied, body = parse(read_all(connection))
    assert (status, body, replied["retry-after"]) == (200, b"{}", "soon")
    assert "openai-model" not in replied and "x" not in replied
