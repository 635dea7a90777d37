"""Connections for urllib3 with less work for each request.

1. Head and body of a request leave in one send instead of two.
2. The system's poll tells whether a kept-alive connection is still open; gevent's would register with the event loop.
3. Responses are parsed in C (http_response.py).

`before_send` is called when the connection is established, TLS included: the last moment at which the request can be
cancelled without the upstream seeing it.
"""

import http.client
from collections.abc import Callable, Mapping
from select import POLLIN
from types import MappingProxyType
from typing import Any, cast

from gevent import monkey
from urllib3.connection import HTTPConnection, HTTPSConnection

from shared.sockets import send_all
from workers.upstream.http_response import LlhttpResponse

#: Bytes of a body above which copying it costs more than a second send.
MAX_JOINED_BYTES = 65_536
poll = monkey.get_original("select", "poll")


class UpstreamHTTPConnection(HTTPConnection):
    """A connection to an upstream."""

    #: Parts of a request that are collected for one send; None outside of `request`.
    _held: list[bytes] | None = None

    def __init__(self, *args: Any, before_send: Callable[[], None], **kwargs: Any) -> None:
        """`before_send` is called before each request is sent; if it raises, nothing is sent."""
        super().__init__(*args, **kwargs)
        self._before_send = before_send

    def request(  # type: ignore[override]
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({}), **_: Any
    ) -> None:
        """urllib3: sends head and body. Header names must be in lower case; urllib3 adds none of its own."""
        self._held = []
        try:
            self.putrequest(method, url, skip_host="host" in headers, skip_accept_encoding=True)
            # urllib3's putheader would check for each header whether to skip it.
            put_header = http.client.HTTPConnection.putheader
            for name, value in headers.items():
                put_header(self, name, value)
            if body or method == "POST":
                put_header(self, "content-length", str(len(body)))
            self.endheaders(body)
        finally:
            held, self._held = self._held, None
        if self.sock is None:
            self.connect()
        self._before_send()
        is_small = sum(map(len, held[1:])) <= MAX_JOINED_BYTES
        for data in [b"".join(held)] if is_small else held:
            send_all(self.sock, data)

    def send(self, data: Any) -> None:
        """http.client: sends bytes, opening the connection if need be; within `request`, collects them."""
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def getresponse(self) -> LlhttpResponse:  # type: ignore[override]
        """urllib3: the response once its head has arrived. No socket timeout: the attempt's scope has the deadlines."""
        if self.sock.gettimeout() is not None:
            self.sock.settimeout(None)
        # Set only here: http.client parses the response of a proxy to CONNECT itself.
        self.response_class = LlhttpResponse  # type: ignore[assignment]
        try:
            return cast("LlhttpResponse", http.client.HTTPConnection.getresponse(self))
        finally:
            del self.response_class

    @property
    def is_connected(self) -> bool:
        """urllib3: whether the connection can be reused: the peer has neither closed it nor sent unexpected bytes."""
        if self.sock is None:
            return False
        poller = poll()
        poller.register(self.sock.fileno(), POLLIN)
        return not poller.poll(0)


class UpstreamHTTPSConnection(UpstreamHTTPConnection, HTTPSConnection):
    """A connection to an upstream over TLS."""
