"""A client whose connection is cut at random, and that retries until it has the whole stream."""

import json
import random
import socket
import struct
import time

from shared.protocol.sse import DONE, parse_events
from tests.system.farm import KEY, Farm, chat_body

#: Cuts before it reads to the end; seconds of a connection before it is cut.
MAX_CUTS, MAX_CUT_SECONDS = 3, 0.6


class CutClient:
    """Asks for streams."""

    def __init__(self, farm: Farm, draw: random.Random) -> None:
        self._farm = farm
        self._draw = draw
        #: Connections that were cut.
        self.cuts = 0

    def ask(self, text: str, idempotency_key: str) -> str:
        """The text of the whole stream."""
        for _ in range(self._draw.randint(1, MAX_CUTS)):
            self._read(text, idempotency_key, self._draw.uniform(0, MAX_CUT_SECONDS))
            self.cuts += 1
        return read_reply(self._read(text, idempotency_key, 120))

    def _read(self, text: str, idempotency_key: str, seconds: float) -> bytes:
        """What comes within so many seconds; then the connection is reset, or closed."""
        received, until = b"", time.monotonic() + seconds
        with open_stream(self._farm, text, idempotency_key) as connection:
            while (left := until - time.monotonic()) > 0:
                connection.settimeout(left)
                try:
                    data = connection.recv(65_536)
                except TimeoutError:
                    break
                if not data:
                    break
                received += data
            if self._draw.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return received


def open_stream(farm: Farm, text: str, idempotency_key: str) -> socket.socket:
    """A connection on which a stream has been asked for."""
    body = json.dumps(chat_body(text, stream=True)).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: farm",
        "connection: close",
        f"authorization: Bearer {KEY}",
        f"idempotency-key: {idempotency_key}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    connection = socket.create_connection(("127.0.0.1", farm.port))
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return connection


def read_reply(reply: bytes) -> str:
    """The text of a reply, which must be a whole stream."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), reply
    return read_text(join_chunks(body))


def join_chunks(body: bytes) -> bytes:
    """The content of a chunked body (RFC 9112 section 7.1), which must be complete."""
    content = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            return content
        content += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def read_text(stream: bytes) -> str:
    """The text of a stream, which must be whole."""
    data = [event.data for event in parse_events(stream) if event.data is not None]
    assert data[-1] == DONE, stream
    choices = [choice for chunk in data[:-1] for choice in json.loads(chunk)["choices"]]
    assert [choice["finish_reason"] for choice in choices if choice.get("finish_reason")] == ["stop"], stream
    return "".join(choice["delta"].get("content", "") for choice in choices)
