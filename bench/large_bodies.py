"""Large bodies beside streams: how much longer the gaps between a stream's chunks become."""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.farm import API_KEY, MeasuredFarm, run_farm_on
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, at_most, exactly, unbounded
from bench.outcome import LoadResult
from bench.simulator import ROOT, run_simulator

#: Streams at a time, one per account, of chunks 20 ms apart.
STREAMS, CHUNKS, CHUNK_DELAY = 100, 100, 0.02
#: Bytes of a body, nearly all of them an image.
BODY_BYTES = 20_000_000
#: The model that a pool of its own serves, by an upstream of its own: it takes the bodies in without delaying streams.
MODEL = "large"
ROUNDS = 3


def build_body(number: int) -> bytes:
    """A chat completion about an image, whose answer is its text."""
    image = "data:image/png;base64," + base64.b64encode(os.urandom(BODY_BYTES * 3 // 4)).decode()
    parts = [{"type": "text", "text": f"image {number}"}, {"type": "image_url", "image_url": {"url": image}}]
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": parts}]}).encode()


def send_body(port: int, body: bytes) -> str:
    """Returns the status of the response; `broken` if there is none."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: farm\r\nauthorization: Bearer {API_KEY}\r\n"
    head += f"connection: close\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode())
            connection.sendall(body)
            status = connection.recv(65_536)[9:12].decode()
            while connection.recv(65_536):
                pass
            return status
    except OSError:
        return "broken"


def send_bodies(port: int, seconds: float) -> None:
    """Sends one body after another and prints the statuses; runs in a process of its own."""
    body, statuses = build_body(1), Counter[str]()
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        statuses[send_body(port, body)] += 1
    print(json.dumps(statuses))


def measure_large_bodies(seconds: float) -> list[Measurement]:
    """100 streams alone and beside a caller that sends bodies of 20 MB without pause, by turns."""
    pace = ("--chunks", str(CHUNKS), "--chunk-delay", f"{CHUNK_DELAY:g}")
    with (
        run_simulator(2) as upstream_of_bodies,
        run_simulator(STREAMS, *pace) as upstream,
        tempfile.TemporaryDirectory(prefix="farm-bench-") as folder,
    ):
        config, tokens = Path(folder) / "farm.toml", Path(folder) / "tokens"
        tokens.write_text("\n".join(upstream_of_bodies.refresh_tokens()))
        url = upstream_of_bodies.url
        config.write_text(
            f'[pools.large]\nupstream_url = "{url}/v1"\ntoken_url = "{url}/oauth/token"\n'
            f'models = ["{MODEL}"]\nrefresh_tokens_file = "{tokens}"\n'
        )
        with run_farm_on(upstream, FARM_CONFIG=str(config), FARM_MODELS="sim-translate") as farm:
            return compare(farm, max(2 * CHUNKS * CHUNK_DELAY, seconds / 2 / ROUNDS))


def compare(farm: MeasuredFarm, seconds: float) -> list[Measurement]:
    load_streams(farm, 1.0)
    alone, beside = [], []
    statuses = Counter[str]()
    for _ in range(ROUNDS):
        alone += load_streams(farm, seconds).gaps
        result, counts = load_beside_bodies(farm, seconds)
        beside += result.gaps
        statuses += counts
    served = statuses.pop("200", 0)
    p99_alone, p99_beside = (1000 * (LoadResult().percentile(0.99, gaps) - CHUNK_DELAY) for gaps in (alone, beside))
    return [
        at_least("large-bodies", "bodies of 20 MB served", served, ROUNDS),
        exactly("large-bodies", f"bodies refused {dict(statuses) or ''}".strip(), sum(statuses.values())),
        unbounded("large-bodies", "bodies per second", round(served / ROUNDS / seconds, 2)),
        unbounded("large-bodies", "added gap p99 of streams alone, ms", round(p99_alone, 1)),
        at_most("large-bodies", "added gap p99 beside the bodies, ms", p99_beside, 50),
        unbounded("large-bodies", "longest gap beside them, ms", round(1000 * max(beside, default=0.0), 1)),
    ]


def load_streams(farm: MeasuredFarm, seconds: float) -> LoadResult:
    return asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, STREAMS, seconds, stream=True, is_traced=True)))


def load_beside_bodies(farm: MeasuredFarm, seconds: float) -> tuple[LoadResult, Counter[str]]:
    command = [sys.executable, "-m", "bench.large_bodies", str(farm.port), f"{seconds:g}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sender:
        result = load_streams(farm, seconds)
        output, _ = sender.communicate()
    return result, Counter(json.loads(output))


if __name__ == "__main__":
    send_bodies(int(sys.argv[1]), float(sys.argv[2]))
