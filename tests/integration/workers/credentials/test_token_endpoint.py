"""Token endpoints as they are: what they ask for, how they refuse, and what an operator sees of it."""

import base64
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
import requests
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

from shared.errors import TokenEndpointDown, TokenError
from shared.protocol.messages import FrameKind
from shared.settings.schema import PoolSettings
from tests.integration.harness import WorkerHarness, collect_frames
from tests.upstream import Upstream
from tests.waiting import eventually
from workers.credentials.token_endpoint import client
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.upstream.client import create_shared_session

StartHarness = Callable[..., WorkerHarness]
Response = tuple[str, dict[str, str], bytes]
JSON = {"content-type": "application/json"}


class ScriptedEndpoint:
    """A token endpoint that responds as it is told, and keeps the requests: headers and fields of the form."""

    def __init__(self) -> None:
        self.respond: Callable[[dict[str, str], dict[str, str]], Response] = lambda *_: ("200 OK", JSON, b"{}")
        self.requests: list[tuple[dict[str, str], dict[str, str]]] = []
        self._server = WSGIServer(("127.0.0.1", 0), self._serve, log=None)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/oauth/token/"

    def _serve(self, environ: Any, start_response: Any) -> list[bytes]:
        headers = {name[5:].lower().replace("_", "-"): v for name, v in environ.items() if name.startswith("HTTP_")}
        body = environ["wsgi.input"].read().decode()
        fields = {name: values[0] for name, values in parse_qs(body).items()}
        self.requests.append(({**headers, "path": environ["PATH_INFO"], "query": environ["QUERY_STRING"]}, fields))
        status, headers, body = self.respond(headers, fields)
        start_response(status, list(headers.items()))
        return [body]

    def close(self) -> None:
        self._server.stop()

    def connect(self, **settings: Any) -> TokenEndpoint:
        pool = PoolSettings(**{"token_url": self.url, **settings})
        return TokenEndpoint(pool, create_shared_session(self.url, 4))


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with closing(ScriptedEndpoint()) as endpoint:
        yield endpoint


def encode(status: str, **fields: Any) -> Response:
    return status, JSON, json.dumps(fields).encode()


def test_endpoint_that_sends_json_only_on_request_is_asked_for_it(endpoint: ScriptedEndpoint):
    def respond(headers: dict[str, str], fields: dict[str, str]) -> Response:
        if "application/json" in headers.get("accept", ""):
            return encode("200 OK", access_token="json")
        return "200 OK", {"content-type": "application/x-www-form-urlencoded"}, b"access_token=form"

    endpoint.respond = respond
    for way in ("form", "json", "bearer"):
        assert endpoint.connect(token_request=way).refresh("rt").access_token == "json"


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded; charset=utf-8", "text/plain", ""])
def test_form_encoded_response_is_understood(endpoint: ScriptedEndpoint, content_type: str):
    body = b"access_token=at&expires_in=28800&refresh_token=r2&scope=&token_type=bearer"
    endpoint.respond = lambda *_: ("200 OK", {"content-type": content_type}, body)
    grant = endpoint.connect().refresh("rt")
    assert (grant.access_token, grant.expires_in, grant.refresh_token) == ("at", 28800.0, "r2")


def test_configured_url_is_used_as_it_is(endpoint: ScriptedEndpoint):
    endpoint.respond = lambda *_: encode("200 OK", access_token="at")
    endpoint.connect(token_url=f"{endpoint.url}?tenant=7").refresh("rt")
    assert (endpoint.requests[0][0]["path"], endpoint.requests[0][0]["query"]) == ("/oauth/token/", "tenant=7")


def test_operators_headers_reach_the_endpoint(endpoint: ScriptedEndpoint):
    endpoint.respond = lambda *_: encode("200 OK", access_token="at")
    endpoint.connect(headers={"User-Agent": "acme/1", "X-Key": "hush"}, token_headers={"X-Tenant": "7"}).refresh("rt")
    headers = endpoint.requests[0][0]
    assert (headers["user-agent"], headers["x-tenant"], headers.get("x-key")) == ("acme/1", "7", None)


class PickyAboutClients:
    """Accepts the client only in one way: `basic`, `plain` or `body`. A request that uses two is refused."""

    def __init__(self, way: str, refusal: Response) -> None:
        self._way, self._refusal = way, refusal
        self.code = ""

    def respond(self, headers: dict[str, str], fields: dict[str, str]) -> Response:
        pairs = {"basic": "app:s%2Fecret", "plain": "app:s/ecret"}
        wanted = f"Basic {base64.b64encode(pairs.get(self._way, '').encode()).decode()}"
        in_body = fields.get("client_secret") == "s/ecret"
        is_right = in_body if self._way == "body" else headers.get("authorization") == wanted
        if not is_right or ("authorization" in headers and "client_secret" in fields):
            return self._refusal
        return encode("400 Bad Request", error=self.code) if self.code else encode("200 OK", access_token="at")


REFUSALS = [
    encode("401 Unauthorized", error="invalid_client"),
    encode("400 Bad Request", error="invalid_client"),
    encode("401 Unauthorized", error="unauthorized_client"),
    encode("200 OK", error={"code": "invalid_client"}),
    ("401 Unauthorized", {"www-authenticate": 'Basic realm="oauth"'}, b"<html>"),
    ("401 Unauthorized", {}, b""),
]


@pytest.mark.parametrize("way", ["basic", "plain", "body"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_client_authenticates_in_the_way_that_the_endpoint_accepts_and_keeps_to_it(
    endpoint: ScriptedEndpoint, way: str, refusal: Response
):
    picky = PickyAboutClients(way, refusal)
    endpoint.respond = picky.respond
    client = endpoint.connect(client_id="app", client_secret="s/ecret")
    assert client.refresh("rt").access_token == "at"
    endpoint.requests.clear()
    assert client.refresh("rt").access_token == "at"
    picky.code = "invalid_grant"
    with pytest.raises(TokenError):
        client.refresh("rt")
    assert len(endpoint.requests) == 2


def test_refused_refresh_token_is_presented_only_once_whatever_the_challenge(endpoint: ScriptedEndpoint):
    body = json.dumps({"error": "invalid_grant"}).encode()
    endpoint.respond = lambda *_: ("401 Unauthorized", {**JSON, "www-authenticate": "Basic"}, body)
    with pytest.raises(TokenError):
        endpoint.connect(client_id="app", client_secret="s/ecret").refresh("rt")
    assert len(endpoint.requests) == 1


def test_configured_way_of_authentication_is_the_only_one(endpoint: ScriptedEndpoint):
    endpoint.respond = lambda *_: encode("401 Unauthorized", error="invalid_client")
    for way, used in (("basic", {"authorization"}), ("body", {"client_secret"})):
        endpoint.requests.clear()
        with pytest.raises(TokenError, match="invalid_client"):
            endpoint.connect(client_id="app", client_secret="secret", token_auth=way).refresh("rt")
        ((headers, fields),) = endpoint.requests
        assert (headers.keys() | fields.keys()) & {"authorization", "client_secret"} == used


def test_revocation_authenticates_the_client_too(endpoint: ScriptedEndpoint):
    endpoint.respond = PickyAboutClients("basic", REFUSALS[0]).respond
    client = endpoint.connect(client_id="app", client_secret="s/ecret", revocation_url=endpoint.url)
    assert client.revoke("rt") == 200
    assert endpoint.requests[-1][1] == {"token": "rt", "token_type_hint": "refresh_token"}


def test_redirect_is_not_followed_and_names_the_setting(endpoint: ScriptedEndpoint):
    endpoint.respond = lambda *_: ("307 Temporary Redirect", {"location": "https://login.example/token"}, b"")
    with pytest.raises(TokenEndpointDown, match=r"to https://login\.example/token: set FARM_TOKEN_URL"):
        endpoint.connect().refresh("rt")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "end",
    [b"", b"transfer-encoding: chunked\r\n", b"content-length: 500\r\n"],
    ids=["connection left open", "no last chunk", "shorter than announced"],
)
def test_grant_is_not_lost_when_the_end_of_its_response_is(end: bytes, monkeypatch: pytest.MonkeyPatch):
    # So that the request would fail if it waited for the end.
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", (10.0, 300.0))
    body = b'{"access_token": "at", "refresh_token": "rotated"}'
    sent = b"%x\r\n%b\r\n" % (len(body), body) if b"chunked" in end else body
    released = Event()

    def respond(client: socket.socket, _: object) -> None:
        client.recv(65_536)
        client.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (end, sent))
        if not end:
            released.wait()

    server = StreamServer(("127.0.0.1", 0), respond)
    server.start()
    url = f"http://127.0.0.1:{server.server_port}/token"
    try:
        grant = TokenEndpoint(PoolSettings(token_url=url), create_shared_session(url, 4)).refresh("rt")
    finally:
        released.set()
        server.stop()
    assert (grant.access_token, grant.refresh_token) == ("at", "rotated")


def test_grant_that_is_cut_is_a_failing_endpoint():
    def respond(client: socket.socket, _: object) -> None:
        client.recv(65_536)
        client.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"access_token": "at", "refresh_t')

    server = StreamServer(("127.0.0.1", 0), respond)
    server.start()
    url = f"http://127.0.0.1:{server.server_port}/token"
    try:
        with pytest.raises(TokenEndpointDown, match="can't be reached"):
            TokenEndpoint(PoolSettings(token_url=url), create_shared_session(url, 4)).refresh("rt")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (encode("200 OK", error="bad_refresh_token", error_description="x"), "invalid_grant_retry: bad_refresh_token"),
        (
            encode("401 Unauthorized", error={"code": "refresh_token_reused"}),
            "invalid_grant_retry: refresh_token_reused",
        ),
        (encode("400 Bad Request", error="invalid_scope"), "no_token: invalid_scope"),
        (("403 Forbidden", {}, b"<html>"), "no_token: http_403"),
        (encode("200 OK", access_token="ключ"), "token_endpoint_down: no_access_token"),
        (("302 Found", {"location": "/login"}, b""), "token_endpoint_down: redirect_302"),
    ],
)
def test_operator_sees_what_the_endpoint_has_against_a_credential(
    start_harness: StartHarness, endpoint: ScriptedEndpoint, response: Response, reason: str
):
    endpoint.respond = lambda *_: response
    harness = start_harness(pool={"token_url": endpoint.url})
    eventually(lambda: harness.credential_state() == ("cooling", reason))


def test_requests_are_served_and_the_rotation_is_stored_when_tokens_come_as_a_form(
    start_harness: StartHarness, endpoint: ScriptedEndpoint, upstream: Upstream
):
    def respond(_: dict[str, str], fields: dict[str, str]) -> Response:
        grant = requests.post(upstream.token_url, data=fields, timeout=30).json()
        body = urlencode({**grant, "refresh_token": "rotated", "scope": ""}).encode()
        return "200 OK", {"content-type": "application/x-www-form-urlencoded"}, body

    endpoint.respond = respond
    harness = start_harness(pool={"token_url": endpoint.url})
    assert collect_frames(harness.enqueue())[-1].kind is FrameKind.END
    assert harness.services.refreshes.store.load(harness.credential_id)[0] == "rotated"


def test_vendors_code_for_a_bad_refresh_token_ends_in_death_after_the_retries(
    start_harness: StartHarness, endpoint: ScriptedEndpoint
):
    endpoint.respond = lambda *_: encode("200 OK", error="bad_refresh_token")
    harness = start_harness(pool={"token_url": endpoint.url}, refusal_patience=1.0)
    eventually(lambda: harness.credential_state() == ("dead", "invalid_grant: bad_refresh_token"))
    assert len(endpoint.requests) > 2


def test_code_that_is_not_known_pauses_the_credential_for_longer_each_time(harness: WorkerHarness):
    health, pauses = harness.worker.runner.health, []
    for _ in range(7):
        health.handle_token_failure(TokenError("refused", "session_ended"))
        pauses.append(health.cooldown.remaining())
    assert pauses == sorted(pauses)
    assert pauses[0] > 3
    assert pauses[-1] > 100
    assert harness.credential_state() == ("cooling", "no_token: session_ended")
