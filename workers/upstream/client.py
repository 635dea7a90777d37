"""HTTP to one upstream: one connection per worker, kept warm; it knows no queue and no frames."""

import json
from collections.abc import Callable, Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from types import MappingProxyType
from typing import cast

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Retry, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError

from shared.errors import FarmError
from shared.protocol.messages import RelayRequest
from workers.upstream.http_connection import UpstreamHTTPConnection, UpstreamHTTPSConnection
from workers.upstream.http_response import READ_BYTES

#: Most bytes kept of an upstream's error answer.
MAX_ERROR_BYTES = 65_536
DEFAULT_HEADERS = {"user-agent": "token-farm", "accept-encoding": "identity"}
NO_RETRIES = Retry(False, redirect=False)
#: Headers of the upstream's answer that reach the caller; the rest are the hop's own (RFC 9110 section 7.6.1).
FORWARDED_HEADERS = (
    "content-type",
    "content-disposition",
    "content-language",
    "openai-model",
    "openai-organization",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
)


class UpstreamUnreachable(FarmError):
    """Raised when no answer could be had: connecting failed, or the connection broke before the first byte."""

    status, code = 502, "upstream_unreachable"


class ConnectTimeout(UpstreamUnreachable):
    """Raised when connecting took longer than FARM_CONNECT_TIMEOUT."""

    status, code = 504, "upstream_connect_timeout"


class ResponseTruncated(FarmError):
    """Raised when an answer broke off in the middle."""


def create_session(url: str, *, pool_size: int = 2, proxy: str = "", ca_bundle: str = "") -> requests.Session:
    """A session that keeps so many connections, and reads proxies and CA bundle from the environment once if not given.

    requests would read them, and ~/.netrc, for each request.
    """
    session = requests.Session()
    session.trust_env = False
    adapter = HTTPAdapter(pool_connections=2, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    environment = requests.Session().merge_environment_settings(url, {}, None, None, None)
    session.proxies = {"http": proxy, "https": proxy} if proxy else environment["proxies"]
    session.verify = ca_bundle or (True if environment["verify"] is None else environment["verify"])
    session.headers.clear()
    session.headers.update(DEFAULT_HEADERS)
    return session


def create_shared_session(url: str, pool_size: int, proxy: str = "", ca_bundle: str = "") -> requests.Session:
    """A session for several accounts at once: it keeps no cookie, so that nothing of one reaches another."""
    session = create_session(url, pool_size=pool_size, proxy=proxy, ca_bundle=ca_bundle)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


class UpstreamRoute:
    """How an upstream is reached: what requests decides of proxy, CA bundle and address, once for a pool."""

    def __init__(self, url: str, *, proxy: str = "", ca_bundle: str = "") -> None:
        session = create_session(url, proxy=proxy, ca_bundle=ca_bundle)
        self._url, self._verify, self._proxies = url, session.verify, session.proxies
        self._prepared = session.prepare_request(requests.Request("POST", url))
        #: The beginning of each request's target.
        self.base_path = HTTPAdapter().request_url(self._prepared, self._proxies).rstrip("/")

    def open_pool(self, before_send: Callable[[], None]) -> HTTPConnectionPool:
        """Connections for one worker, none of them open yet."""
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=2, max_retries=0)
        found = adapter.get_connection_with_tls_context(self._prepared, self._verify, self._proxies)
        adapter.cert_verify(found, self._url, self._verify, None)  # type: ignore[no-untyped-call]
        pool = cast("HTTPConnectionPool", found)
        pool.ConnectionCls = UpstreamHTTPSConnection if pool.scheme == "https" else UpstreamHTTPConnection  # type: ignore[assignment]
        pool.conn_kw["before_send"] = before_send
        return pool


class UpstreamConnection:
    """The upstream of one worker, over a connection that is kept; urllib3 carries the requests."""

    def __init__(
        self,
        route: UpstreamRoute,
        connect_timeout: float,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        before_send: Callable[[], None] = lambda: None,
    ) -> None:
        """`headers` are the pool's own; what a request or the farm itself has to say goes before them.

        `before_send` is called when nothing but the sending is left to do, and calls it off by raising.
        """
        self._headers = {name.lower(): value for name, value in headers.items()} | DEFAULT_HEADERS
        self._pool = route.open_pool(before_send)
        self._base_path = route.base_path
        self._timeout = Timeout(connect=connect_timeout, read=None)

    def call(self, request: RelayRequest, body: bytes, token: str) -> BaseHTTPResponse:
        """Sends the request and returns when the headers are there. Raises UpstreamUnreachable."""
        for is_last_try in (False, True):
            try:
                return self._send(request, body, token)
            except (HTTPError, OSError) as error:
                if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
                    raise ConnectTimeout(type(error).__name__) from None
                if is_last_try or not was_closed_while_idle(error):
                    raise UpstreamUnreachable(type(error).__name__) from None
        raise AssertionError("the loop returns or raises")

    def _send(self, request: RelayRequest, body: bytes, token: str) -> BaseHTTPResponse:
        return self._pool.urlopen(
            request.method,
            self._base_path + request.path,
            body=body,
            headers={**self._headers, **request.headers, "authorization": f"Bearer {token}"},
            retries=NO_RETRIES,
            redirect=False,
            assert_same_host=False,
            timeout=self._timeout,
            preload_content=False,
            decode_content=False,
        )

    def close(self) -> None:
        """Closes the connection."""
        self._pool.close()


def was_closed_while_idle(error: Exception) -> bool:
    """Whether the upstream closed the kept connection without an answer; that says nothing about it, so ask anew."""
    return isinstance(error, ProtocolError)


def iter_body(response: BaseHTTPResponse) -> Iterator[bytes]:
    """The body as it arrives, without waiting for more than there is. Raises AnswerCut when it breaks off.

    The response tells a body that ended from one that was cut, by Content-Length or the last chunk.
    """
    try:
        while data := response.read1(READ_BYTES, decode_content=True):
            yield data
    except (HTTPError, OSError) as error:
        raise ResponseTruncated(type(error).__name__) from None


def read_error_body(response: BaseHTTPResponse) -> bytes:
    """As much of an error answer as is kept. Raises AnswerCut."""
    body = b""
    for data in iter_body(response):
        body += data
        if len(body) > MAX_ERROR_BYTES:
            break
    return body


def read_whole_json(response: BaseHTTPResponse) -> Iterator[bytes]:
    """A JSON body of which only the closed connection tells the end, in one piece. Raises AnswerCut when it is none."""
    body = b"".join(iter_body(response))
    try:
        json.loads(body)
    except ValueError:
        raise ResponseTruncated("half a JSON") from None
    yield body


def is_json(response: BaseHTTPResponse) -> bool:
    """Whether the body is JSON."""
    return response.headers.get("content-type", "").lower().startswith("application/json")


def select_headers(response: BaseHTTPResponse) -> dict[str, str]:
    """The headers that reach the caller."""
    names = {name.lower() for name in response.headers}
    return {name: response.headers[name] for name in FORWARDED_HEADERS if name in names}


def is_event_stream(response: BaseHTTPResponse) -> bool:
    """Whether the body is a stream of server-sent events."""
    return response.headers.get("content-type", "").lower().startswith("text/event-stream")
