"""The load tells correct responses from wrong ones, including those that it judges after the load."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable

import pytest

from bench.load import Load, run_load
from bench.outcome import CORRECT
from simulator.responses import stream_chat_completion

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def build_events(prompt: str) -> list[bytes]:
    return list(stream_chat_completion({"messages": [{"role": "user", "content": prompt}]}, 1, 5))


def encode_chunks(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)


async def count_outcomes(respond: Callable[[str], bytes], *, closes: bool) -> Counter[str]:
    """Runs a load against a server that responds like this, in small pieces; `closes`: then disconnects."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            data = respond(body["messages"][0]["content"])
            for start in range(0, len(data), 7):
                writer.write(data[start : start + 7])
                await writer.drain()
            if closes:
                writer.close()
                return

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await run_load(Load("127.0.0.1", port, "key", 2, 0.05, stream=True))
    assert result.completed == sum(record.outcome == CORRECT and record.ended <= 0.05 for record in result.records)
    return Counter(record.outcome for record in result.records)


ERROR = b'data: {"error": {"code": "upstream_eof"}}\n\n'
END = encode_chunks([b""]) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("respond", "expected"),
    [
        (lambda text: encode_chunks(build_events(text)) + END, CORRECT),
        (lambda text: encode_chunks(build_events(text + "!")) + END, "MIXED"),
        (lambda text: encode_chunks(build_events(text)[:3] + build_events(text)[-1:]) + END, "TRUNCATED"),
        (lambda text: encode_chunks(build_events(text)[:3]) + END, "TRUNCATED"),
        (lambda text: encode_chunks([*build_events(text)[:3], ERROR]) + END, "error event upstream_eof"),
        (lambda text: encode_chunks(build_events(text)[:3]), "broken in mid-stream"),
    ],
)
def test_the_outcome_of_a_stream(respond: Callable[[str], bytes], expected: str):
    closes = expected.startswith("broken")
    outcomes = asyncio.run(count_outcomes(lambda text: HEAD + respond(text), closes=closes))
    assert set(outcomes) == {expected}, outcomes
