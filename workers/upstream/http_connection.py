"""urllib3's connections with three things left out that each request would pay for; it knows no upstream.

A request's head and body are one send instead of two, whether a kept connection still lives is asked of the system and
not of gevent's poll, which registers with the event loop for it, and answers are parsed in C. In front of that send,
when a new connection and its TLS stand, is the last moment in which a request can be called off unseen.
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

#: Bytes of a body above which copying them costs more than a send.
MAX_JOINED_BYTES = 65_536
poll = monkey.get_original("select", "poll")


class UpstreamHTTPConnection(HTTPConnection):
    """What both kinds have in common."""

    #: What waits to be sent in one go; None while there is nothing to wait for.
    _held: list[bytes] | None = None

    def __init__(self, *args: Any, before_send: Callable[[], None], **kwargs: Any) -> None:
        """`before_send` is called before each request leaves; what it raises is raised, and nothing leaves."""
        super().__init__(*args, **kwargs)
        self._before_send = before_send

    def request(  # type: ignore[override]
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({}), **_: Any
    ) -> None:
        """urllib3: sends head and body. The names of the headers are in lower case, and all there are."""
        self._held = []
        try:
            self.putrequest(method, url, skip_host="host" in headers, skip_accept_encoding=True)
            # urllib3's own asks of each header once more whether it is to be left out.
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
        """http.client: sends bytes, on a connection that it opens when there is none."""
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def getresponse(self) -> LlhttpResponse:  # type: ignore[override]
        """urllib3: the answer, as soon as its head is there; without a limit on the time that it takes."""
        if self.sock.gettimeout() is not None:
            self.sock.settimeout(None)
        # Only now: the answer of a proxy that opens a tunnel is http.client's own.
        self.response_class = LlhttpResponse  # type: ignore[assignment]
        try:
            return cast("LlhttpResponse", http.client.HTTPConnection.getresponse(self))
        finally:
            del self.response_class

    @property
    def is_connected(self) -> bool:
        """urllib3: whether the other end has neither closed the connection nor sent what nobody asked for."""
        if self.sock is None:
            return False
        poller = poll()
        poller.register(self.sock.fileno(), POLLIN)
        return not poller.poll(0)


class UpstreamHTTPSConnection(UpstreamHTTPConnection, HTTPSConnection):
    """The same over TLS."""
