"""Sends relay requests to the upstream over one kept-alive connection per worker."""

import logging
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from http.cookiejar import DefaultCookiePolicy
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Retry, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from shared.errors import FarmError
from shared.parsing import parse_json
from shared.protocol.messages import RelayRequest
from shared.settings.environment_network import read_environment
from workers.upstream.http_connection import ConnectionDropped, select_connection_class
from workers.upstream.http_response import READ_BYTES, list_header_names
from workers.upstream.tls import ClientCertificate, TlsAdapter, UnusableCertificates, UnusableClientCertificate

log = logging.getLogger("farm.relay")
#: Seconds between two log lines about a pool that is misconfigured.
MISCONFIGURED_LOG_SECONDS = 60.0
#: Bytes of an upstream's error body after which the rest is not read.
MAX_ERROR_BYTES = 262_144
#: Pieces of an error's body after which its end is no longer looked for.
MAX_ERROR_EXAMINATIONS = 32
#: How a gzip file with deflated data begins (RFC 1952 section 2.3), and zlib's argument that makes it read one.
GZIP_START, GZIP_WINDOW_BITS = b"\x1f\x8b\x08", 31
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
    """Raised when no connection could be made, so that the upstream has not seen the request."""

    status, code = 502, "upstream_unreachable"


class ConnectTimeout(UpstreamUnreachable):
    """Raised when connecting took longer than FARM_CONNECT_TIMEOUT."""

    status, code = 504, "upstream_connect_timeout"


class UpstreamMisconfigured(FarmError):
    """Raised when the pool's settings allow no request at all; the message names the setting."""


class ResponseTruncated(FarmError):
    """Raised when a response ended before it was complete."""


def create_session(
    url: str, *, pool_size: int = 2, proxy: str = "", ca_bundle: str = "", client: ClientCertificate | None = None
) -> requests.Session:
    """Creates a session that keeps `pool_size` connections.

    Proxy and CA bundle are read from the environment once, if not given; requests would read them, and ~/.netrc, for
    each request.
    """
    session = requests.Session()
    session.trust_env = False
    environment_proxies, environment_verify = read_environment(url)
    session.proxies = {"http": proxy, "https": proxy} if proxy else dict(environment_proxies)
    session.verify = ca_bundle or environment_verify
    session.cert = client
    adapter = TlsAdapter(session.verify, pools=2, pool_size=pool_size)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers.clear()
    session.headers.update(DEFAULT_HEADERS)
    return session


def create_shared_session(
    url: str, pool_size: int, proxy: str = "", ca_bundle: str = "", client: ClientCertificate | None = None
) -> requests.Session:
    """Creates a session for several credentials. It keeps no cookies, which would carry over between them."""
    session = create_session(url, pool_size=pool_size, proxy=proxy, ca_bundle=ca_bundle, client=client)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


class ResolvedRoute(NamedTuple):
    """What requests makes of a pool's settings."""

    prepared: requests.PreparedRequest
    verify: Any
    proxies: Any
    client: ClientCertificate | None
    #: Prefix of each request's target.
    base_path: str


class UpstreamRoute:
    """How a pool's upstream is reached: proxy, CA bundle, client certificate and address, resolved once by requests."""

    def __init__(
        self, url: str, *, proxy: str = "", ca_bundle: str = "", client: ClientCertificate | None = None
    ) -> None:
        self._url, self._proxy, self._ca_bundle, self._client = url, proxy, ca_bundle, client
        #: When a mistake in the settings was last logged, by the monotonic clock.
        self._logged_at = float("-inf")

    def open_pool(self, before_send: Callable[[], None]) -> tuple[HTTPConnectionPool, str]:
        """A connection pool for one worker, with no connection open yet, and the prefix of each request's target.

        Raises UpstreamMisconfigured.
        """
        try:
            return self._open_pool(before_send), self._resolved.base_path
        except Exception as error:
            setting, reason = self._find_bad_setting(error)
            if time.monotonic() - self._logged_at > MISCONFIGURED_LOG_SECONDS:
                self._logged_at = time.monotonic()
                extra = {"action": "upstream_misconfigured", "reason": setting}
                log.error("no request can be sent: %s: %s", setting, reason, extra=extra)
            raise UpstreamMisconfigured(setting) from None

    @cached_property
    def _resolved(self) -> ResolvedRoute:
        session = create_session(self._url, proxy=self._proxy, ca_bundle=self._ca_bundle, client=self._client)
        prepared = session.prepare_request(requests.Request("POST", self._url))
        base_path = HTTPAdapter().request_url(prepared, session.proxies).rstrip("/")
        return ResolvedRoute(prepared, session.verify, session.proxies, self._client, base_path)

    def _open_pool(self, before_send: Callable[[], None]) -> HTTPConnectionPool:
        prepared, verify, proxies, client, _ = self._resolved
        adapter = TlsAdapter(verify, pools=1, pool_size=2)
        pool = cast("HTTPConnectionPool", adapter.get_connection_with_tls_context(prepared, verify, proxies, client))
        pool.ConnectionCls = select_connection_class(pool)
        pool.conn_kw["before_send"] = before_send
        return pool

    def _find_bad_setting(self, error: Exception) -> tuple[str, str]:
        """The setting that requests could not use, and why; without a proxy's URL, which may hold a password."""
        if isinstance(error, UnusableClientCertificate):
            return "FARM_CLIENT_CERT", str(error)
        if isinstance(error, (UnusableCertificates, ssl.SSLError)):
            return "FARM_CA_BUNDLE", str(error)
        if self._proxy and can_parse(self._url):
            return "FARM_UPSTREAM_PROXY", type(error).__name__
        return "FARM_UPSTREAM_URL", str(error)


def can_parse(url: str) -> bool:
    """Whether requests takes the URL."""
    try:
        requests.Request("POST", url).prepare()
    except (requests.RequestException, ValueError):
        return False
    return True


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
        """`headers` are the pool's own: they replace the farm's, such as its User-Agent; the request's take precedence.

        `before_send` is called right before a request is sent, and prevents that by raising. Raises
        UpstreamMisconfigured.
        """
        self._headers = DEFAULT_HEADERS | {name.lower(): value for name, value in headers.items()}
        self._pool, self._base_path = route.open_pool(before_send)
        self._timeout = Timeout(connect=connect_timeout, read=None)

    def call(self, request: RelayRequest, body: bytes, token: str) -> BaseHTTPResponse:
        """Sends the request and returns once the response's headers have arrived.

        Raises UpstreamUnreachable, ConnectionDropped, RequestNotSendable. Sends it again only if the upstream had
        closed the idle connection: else it may be working on the request, and a credential may not have two (I1).
        """
        try:
            return self._send(request, body, token)
        except ConnectionDropped as error:
            if not error.was_idle:
                raise
        return self._send(request, body, token)

    def _send(self, request: RelayRequest, body: bytes, token: str) -> BaseHTTPResponse:
        try:
            return self._call_pool(request, body, token)
        except (HTTPError, OSError) as error:
            if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
                raise ConnectTimeout(type(error).__name__) from None
            raise UpstreamUnreachable(type(error).__name__) from None

    def _call_pool(self, request: RelayRequest, body: bytes, token: str) -> BaseHTTPResponse:
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


def iter_body(response: BaseHTTPResponse) -> Iterator[bytes]:
    """Yields the body as it arrives. Raises ResponseTruncated when Content-Length or chunking says it is incomplete.

    A body that is compressed although no header says so, or once more than it says, is decompressed.
    """
    inflater: Any = None
    has_begun = False
    try:
        while data := response.read1(READ_BYTES, decode_content=True):
            if not has_begun and data.startswith(GZIP_START):
                inflater = zlib.decompressobj(GZIP_WINDOW_BITS)
            has_begun = True
            if data := inflater.decompress(data) if inflater else data:
                yield data
    except (HTTPError, OSError, zlib.error) as error:
        raise ResponseTruncated(type(error).__name__) from None
    if inflater and not inflater.eof:
        raise ResponseTruncated("truncated gzip")


def iter_error_body(response: BaseHTTPResponse) -> Iterator[bytes]:
    """Yields the body of an error until its end, until it breaks off, or until MAX_ERROR_BYTES have arrived.

    An upstream that leaves the connection open behind a complete error is not waited for.
    """
    body, delimited = b"", "content-length" in response.headers
    try:
        for number, data in enumerate(iter_body(response)):
            yield data
            body += data
            may_be_complete = not delimited and number < MAX_ERROR_EXAMINATIONS
            if len(body) > MAX_ERROR_BYTES or (may_be_complete and is_complete_error(body)):
                return
    except ResponseTruncated:
        return


def is_complete_error(body: bytes) -> bool:
    """Whether a body whose length is not known holds a whole JSON value, or a whole server-sent event."""
    stripped = body.rstrip()
    if not stripped.endswith((b"}", b"]")):
        return False
    return parse_json(stripped) is not None or (body.endswith((b"\n\n", b"\r\r", b"\n\r\n")) and b"data:" in body)


def select_headers(response: BaseHTTPResponse) -> dict[str, str]:
    names = list_header_names(response)
    return {name: response.headers[name] for name in FORWARDED_HEADERS if name in names}
