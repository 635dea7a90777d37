"""Sends relay requests to the upstream over one kept-alive connection per worker."""

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

#: Bytes of an upstream's error body after which the rest is not read.
MAX_ERROR_BYTES = 65_536
DEFAULT_HEADERS = {"user-agent": "token-farm", "accept-encoding": "identity"}
NO_RETRIES = Retry(False, redirect=False)
#: Response headers that reach the caller; the others concern only this hop (RFC 9110 section 7.6.1).
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
    """Raised when there was no response: connecting failed, or the connection broke before the first byte."""

    status, code = 502, "upstream_unreachable"


class ConnectTimeout(UpstreamUnreachable):
    """Raised when connecting took longer than FARM_CONNECT_TIMEOUT."""

    status, code = 504, "upstream_connect_timeout"


class ResponseTruncated(FarmError):
    """Raised when a response ended before it was complete."""


def create_session(url: str, *, pool_size: int = 2, proxy: str = "", ca_bundle: str = "") -> requests.Session:
    """Creates a session that keeps `pool_size` connections.

    Proxy and CA bundle are read from the environment once, if not given; requests would read them, and ~/.netrc, for
    each request.
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
    """Creates a session for several credentials. It keeps no cookies, which would carry over between them."""
    session = create_session(url, pool_size=pool_size, proxy=proxy, ca_bundle=ca_bundle)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


class UpstreamRoute:
    """How a pool's upstream is reached: proxy, CA bundle and address, resolved once by requests."""

    def __init__(self, url: str, *, proxy: str = "", ca_bundle: str = "") -> None:
        session = create_session(url, proxy=proxy, ca_bundle=ca_bundle)
        self._url, self._verify, self._proxies = url, session.verify, session.proxies
        self._prepared = session.prepare_request(requests.Request("POST", url))
        #: Prefix of each request's target.
        self.base_path = HTTPAdapter().request_url(self._prepared, self._proxies).rstrip("/")

    def open_pool(self, before_send: Callable[[], None]) -> HTTPConnectionPool:
        """A connection pool for one worker, with no connection open yet."""
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=2, max_retries=0)
        pool = cast(
            "HTTPConnectionPool",
            adapter.get_connection_with_tls_context(self._prepared, self._verify, self._proxies),
        )
        adapter.cert_verify(pool, self._url, self._verify, None)  # type: ignore[no-untyped-call]
        pool.ConnectionCls = UpstreamHTTPSConnection if pool.scheme == "https" else UpstreamHTTPConnection  # type: ignore[assignment]
        pool.conn_kw["before_send"] = before_send
        return pool


class UpstreamConnection:
    """One worker's kept-alive connection to its upstream, by urllib3."""

    def __init__(
        self,
        route: UpstreamRoute,
        connect_timeout: float,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        before_send: Callable[[], None] = lambda: None,
    ) -> None:
        """`headers` are the pool's own; the farm's and the request's take precedence.

        `before_send` is called right before a request is sent, and prevents that by raising.
        """
        self._headers = {name.lower(): value for name, value in headers.items()} | DEFAULT_HEADERS
        self._pool = route.open_pool(before_send)
        self._base_path = route.base_path
        self._timeout = Timeout(connect=connect_timeout, read=None)

    def call(self, request: RelayRequest, body: bytes, token: str) -> BaseHTTPResponse:
        """Sends the request and returns once the response's headers have arrived. Raises UpstreamUnreachable.

        Retries once if the upstream had closed the idle connection.
        """
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
        self._pool.close()


def was_closed_while_idle(error: Exception) -> bool:
    """Whether the upstream closed the kept-alive connection without a response, which says nothing about its health."""
    return isinstance(error, ProtocolError)


def iter_body(response: BaseHTTPResponse) -> Iterator[bytes]:
    """Yields the body as it arrives. Raises ResponseTruncated when Content-Length or chunking says it is incomplete."""
    try:
        while data := response.read1(READ_BYTES, decode_content=True):
            yield data
    except (HTTPError, OSError) as error:
        raise ResponseTruncated(type(error).__name__) from None


def read_error_body(response: BaseHTTPResponse) -> bytes:
    """Reads the body until its end, or until more than MAX_ERROR_BYTES have arrived. Raises ResponseTruncated."""
    body = b""
    for data in iter_body(response):
        body += data
        if len(body) > MAX_ERROR_BYTES:
            break
    return body


def read_whole_json(response: BaseHTTPResponse) -> Iterator[bytes]:
    """Yields a JSON body whose end only the closed connection marks, in one piece.

    Raises ResponseTruncated when it is not valid JSON: it has been cut off.
    """
    body = b"".join(iter_body(response))
    try:
        json.loads(body)
    except ValueError:
        raise ResponseTruncated("incomplete JSON") from None
    yield body


def is_json(response: BaseHTTPResponse) -> bool:
    return response.headers.get("content-type", "").lower().startswith("application/json")


def select_headers(response: BaseHTTPResponse) -> dict[str, str]:
    names = {name.lower() for name in response.headers}
    return {name: response.headers[name] for name in FORWARDED_HEADERS if name in names}


def is_event_stream(response: BaseHTTPResponse) -> bool:
    return response.headers.get("content-type", "").lower().startswith("text/event-stream")
