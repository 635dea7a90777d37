"""A client whose connection is cut at random, and that retries by its idempotency key until it has the whole stream."""

import json
import random
import socket
import struct
import time
from dataclasses import dataclass

from bench.load import Load
from shared.protocol.sse import DONE, parse_events

#: Cuts before it reads to the end; seconds of a connection before it is cut, and of one that is not.
MAX_CUTS, MAX_CUT_SECONDS, MAX_SECONDS = 3, 0.6, 120.0


class NotWhole(ValueError):
    """Raised for a reply that is no whole stream."""


@dataclass
class CutClient:
    """Asks for streams; several threads may use it."""

    port: int
    key: str
    draw: random.Random
    #: Connections that were cut.
    cuts: int = 0

    def ask(self, text: str, idempotency_key: str) -> str:
        """The text of the whole stream. Raises NotWhole."""
        for _ in range(self.draw.randint(1, MAX_CUTS)):
            self._read(text, idempotency_key, self.draw.uniform(0, MAX_CUT_SECONDS))
            self.cuts += 1
        return read_reply(self._read(text, idempotency_key, MAX_SECONDS))

    def _read(self, text: str, idempotency_key: str, seconds: float) -> bytes:
        """What comes within so many seconds; then the connection is reset, or closed."""
        received, until = b"", time.monotonic() + seconds
        with self.open_stream(text, idempotency_key) as connection:
            while (left := until - time.monotonic()) > 0:
                connection.settimeout(left)
                try:
                    data = connection.recv(65_536)
                except TimeoutError:
                    break
                if not data:
                    break
                received += data
            if self.draw.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return received

    def open_stream(self, text: str, idempotency_key: str) -> socket.socket:
        """A connection on which a stream has been asked for."""
        headers = {"connection": "close", "idempotency-key": idempotency_key}
        load = Load("127.0.0.1", self.port, self.key, 1, MAX_SECONDS, stream=True, headers=headers)
        connection = socket.create_connection((load.host, load.port))
        connection.sendall(load.encode_request(text))
        return connection


def read_reply(reply: bytes) -> str:
    """The text of a reply. Raises NotWhole."""
    head, _, body = reply.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise NotWhole(reply)
    return read_text(join_chunks(body))


def join_chunks(body: bytes) -> bytes:
    """The content of a chunked body (RFC 9112 section 7.1). Raises NotWhole."""
    content = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        try:
            count = int(size, 16)
        except ValueError:
            raise NotWhole(content) from None
        if not count:
            return content
        content += body[:count]
        body = body[count + 2 :]


def read_text(stream: bytes) -> str:
    """The text of a stream. Raises NotWhole."""
    data = [event.data for event in parse_events(stream) if event.data is not None]
    if not data or data[-1] != DONE:
        raise NotWhole(stream)
    choices = [choice for chunk in data[:-1] for choice in json.loads(chunk)["choices"]]
    if [choice["finish_reason"] for choice in choices if choice.get("finish_reason")] != ["stop"]:
        raise NotWhole(stream)
    return "".join(choice["delta"].get("content", "") for choice in choices)
