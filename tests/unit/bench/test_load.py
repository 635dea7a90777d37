"""The load tells right answers from wrong ones, also those that it judges when it is over."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable

import pytest

from bench.load import Load, run
from bench.outcome import RIGHT
from simulator.responses import stream_chat_completion

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def events(question: str) -> list[bytes]:
    return list(stream_chat_completion({"messages": [{"role": "user", "content": question}]}, 1, 5))


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)


async def outcomes(answer: Callable[[str], bytes], cut: bool) -> Counter[str]:
    """What the load says of a server that answers so, each request on a connection of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            data = answer(asked["messages"][0]["content"])
            for at in range(0, len(data), 7):
                writer.write(data[at : at + 7])
                await writer.drain()
            if cut:
                writer.close()
                return

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await run(Load("127.0.0.1", port, "key", 2, 0.05, stream=True))
    assert result.answers == sum(one.outcome == RIGHT and one.ended <= 0.05 for one in result.records)
    return Counter(one.outcome for one in result.records)


ERROR = b'data: {"error": {"code": "upstream_eof"}}\n\n'
END = chunked([b""]) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda text: chunked(events(text)) + END, RIGHT),
        (lambda text: chunked(events(text + "!")) + END, "MIXED"),
        (lambda text: chunked(events(text)[:3] + events(text)[-1:]) + END, "TRUNCATED"),
        (lambda text: chunked(events(text)[:3]) + END, "TRUNCATED"),
        (lambda text: chunked([*events(text)[:3], ERROR]) + END, "error event upstream_eof"),
        (lambda text: chunked(events(text)[:3]), "broken in mid-stream"),
    ],
)
def test_what_became_of_a_stream(answer: Callable[[str], bytes], expected: str):
    cut = expected.startswith("broken")
    found = asyncio.run(outcomes(lambda text: HEAD + answer(text), cut))
    assert set(found) == {expected}, found
