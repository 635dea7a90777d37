"""An upstream that writes exactly the bytes that a test names.

A response is a list of steps: bytes to write, seconds to pause, `CLOSE` to end the connection, `HOLD` to keep it open
until the other side closes it. The builders below make the usual forms; a new report is another few bytes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent import socket
from gevent.server import StreamServer

CLOSE, HOLD = "close", "hold"
Step = bytes | float | str
Steps = Sequence[Step]


@dataclass(frozen=True)
class RawRequest:
    """A request as it arrived."""

    head: str
    body: bytes
    #: From 0, in the order of arrival.
    number: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str:
        """The access token, by which accounts are told apart."""
        return self.header("authorization").removeprefix("Bearer ")

    def header(self, name: str) -> str:
        """A header's value, '' without one."""
        for line in self.head.split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name:
                return value.strip()
        return ""


class RawUpstream:
    """Serves scripted responses; use it as a context manager."""

    def __init__(self, *responses: Steps, respond: Callable[[RawRequest], Steps] | None = None) -> None:
        """The first request gets the first response, and so on; the last one repeats. `respond` decides instead."""
        self.script(*responses)
        self._respond = respond
        self.requests: list[RawRequest] = []
        self.connections = 0
        #: Connections that the other side has closed while they were held.
        self.released = 0
        self._server = StreamServer(("127.0.0.1", 0), self._serve)

    def __enter__(self) -> "RawUpstream":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(timeout=1)

    def script(self, *responses: Steps) -> None:
        """Serves these responses from now on; the last one repeats."""
        self._responses = list(responses)
        if responses:
            self._respond = None

    def _take_response(self, request: RawRequest) -> Steps:
        if self._respond:
            return self._respond(request)
        return self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def _serve(self, client: socket.socket, _: object) -> None:
        self.connections += 1
        try:
            while request := self._receive(client):
                self.requests.append(request)
                if self._write(client, self._take_response(request)):
                    return
        except OSError:
            return
        finally:
            client.close()

    def _receive(self, client: socket.socket) -> RawRequest | None:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (data := client.recv(65_536)):
                return None
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        request = RawRequest(head.decode(), b"", len(self.requests))
        length = int(request.header("content-length") or 0)
        while len(body) < length:
            body += client.recv(65_536)
        return RawRequest(request.head, body, request.number)

    def _write(self, client: socket.socket, steps: Steps) -> bool:
        """Whether the connection has ended."""
        for step in steps:
            if isinstance(step, bytes):
                client.sendall(step)
            elif step == HOLD:
                while client.recv(65_536):
                    pass
                self.released += 1
                return True
            elif step == CLOSE:
                return True
            else:
                gevent.sleep(float(step))
        return False


def build_head(status: int = 200, content_type: str | None = "application/json", *headers: str) -> bytes:
    """A response's head; `content_type` None leaves that header out."""
    lines = [f"HTTP/1.1 {status} X", *([] if content_type is None else [f"Content-Type: {content_type}"]), *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def whole(
    body: bytes | dict[str, Any] | list[Any],
    content_type: str | None = "application/json",
    *headers: str,
    status: int = 200,
) -> Steps:
    """A response with a Content-Length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [build_head(status, content_type, f"Content-Length: {len(data)}", *headers) + data]


def chunked(
    *pieces: bytes, content_type: str | None = "text/event-stream", end: Steps = (b"0\r\n\r\n",), status: int = 200
) -> Steps:
    """A response in chunked coding, a chunk for each piece, and the steps that end it."""
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return [build_head(status, content_type, "Transfer-Encoding: chunked"), *chunks, *end]


def until_closed(*pieces: bytes, content_type: str | None = "application/json", status: int = 200) -> Steps:
    """A response whose end only the closed connection marks."""
    return [build_head(status, content_type, "Connection: close"), *pieces, CLOSE]


def event(value: Any, name: str = "") -> bytes:
    """A server-sent event with this JSON value."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def chat_chunk(content: str | None = None, finish_reason: str | None = None, index: int = 0, **members: Any) -> bytes:
    """A chunk of a chat stream; `members` replace its own."""
    delta = {} if content is None else {"content": content}
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return event(
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **members}
    )


def chat_stream(*texts: str) -> list[bytes]:
    """The events of a complete chat stream."""
    return [*(chat_chunk(text) for text in texts), chat_chunk(finish_reason="stop"), DONE]


def chat_completion(content: str = "Hello", **members: Any) -> dict[str, Any]:
    """A whole chat completion; `members` replace its own."""
    message = {"role": "assistant", "content": content}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        **members,
    }
