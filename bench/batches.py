"""A batch on all accounts: how busy it keeps them, what memory it takes, and what interactive callers notice of it."""

import asyncio
import json
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from bench.farm import API_KEY, MeasuredFarm, run_farm
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, at_most, exactly, unbounded
from bench.outcome import LoadResult

SCENARIO = "batch"
#: Accounts, seconds that each reply takes, and interactive clients beside the batch.
ACCOUNTS, DELAY, CLIENTS = 100, 1.0, 20
ENDED = ("completed", "failed", "expired", "cancelled")
#: Seconds between two samples; reading the memory of all processes takes milliseconds.
SAMPLE_SECONDS, MEMORY_EVERY = 0.2, 5
#: Shortest and longest interactive load, in seconds.
MIN_LOAD_SECONDS, MAX_LOAD_SECONDS = 6.0, 20.0
#: Seconds of a load before it is measured: until then all accounts may be busy with lines.
ONSET_SECONDS = 3.0


@dataclass(frozen=True)
class BatchClient:
    """A caller that uses the endpoints of files and batches."""

    port: int

    def run(self, lines: int) -> str:
        """Uploads the input and creates the batch; returns its id."""
        content = b"".join(build_line(number) for number in range(lines))
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
        head += 'content-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        form = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        uploaded = json.loads(self.call("/v1/files", form, f"multipart/form-data; boundary={boundary}"))
        wanted = {"input_file_id": uploaded["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str(json.loads(self.call("/v1/batches", json.dumps(wanted).encode()))["id"])

    def read(self, batch_id: str) -> dict[str, Any]:
        batch: dict[str, Any] = json.loads(self.call(f"/v1/batches/{batch_id}"))
        return batch

    def try_to_read(self, batch_id: str) -> dict[str, Any] | None:
        """None while the farm can't reply."""
        try:
            return self.read(batch_id)
        except OSError:
            return None

    def count_custom_ids(self, batch: dict[str, Any]) -> Counter[str]:
        """How often each `custom_id` is in the output and the errors of a batch that has ended."""
        found: Counter[str] = Counter()
        for file_id in (batch["output_file_id"], batch["error_file_id"]):
            if file_id:
                content = self.call(f"/v1/files/{file_id}/content")
                found.update(json.loads(line)["custom_id"] for line in content.splitlines())
        return found

    def call(self, path: str, data: bytes | None = None, content_type: str = "application/json") -> bytes:
        headers = {"authorization": f"Bearer {API_KEY}", "content-type": content_type}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            content: bytes = response.read()
            return content


def build_line(number: int) -> bytes:
    text = f"Paragraph {number} of a book that is to be translated while everybody sleeps, line by line."
    body = {"model": "sim-translate", "messages": [{"role": "user", "content": text}]}
    line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line).encode() + b"\n"


@dataclass
class Samples:
    """What was seen while the batch ran."""

    #: Requests that the upstream had served, and those in flight there.
    served: list[tuple[int, int]] = field(default_factory=list)
    #: MB of the fronts, and of Redis.
    front: list[float] = field(default_factory=list)
    redis: list[float] = field(default_factory=list)
    #: Bytes of results in Redis.
    results: list[int] = field(default_factory=list)

    def take(self, farm: MeasuredFarm, batch_id: str = "") -> None:
        counters = farm.upstream.read_counters()
        self.served.append((counters["served"], counters["in_flight"]))
        if len(self.served) % MEMORY_EVERY == 1:
            memory = farm.measure_memory()
            self.front.append(memory["front"])
            self.redis.append(memory["redis"])
        if batch_id:
            self.results.append(int(farm.redis.client.hget(f"farm:batch:{batch_id}", "result_bytes") or 0))

    def busy_share(self, lines: int, accounts: int) -> float:
        """Share of the accounts that were in use, on average, but for the first and the last lines."""
        busy = [count for served, count in self.served if 2 * accounts <= served <= lines - 2 * accounts]
        return sum(busy) / len(busy) / accounts if busy else 0.0


def measure_batch(seconds: float) -> list[Measurement]:
    """A batch of as many lines as 100 accounts serve in `--seconds`; then interactive load with and without a batch.

    The batch comes first: after interactive requests it leaves accounts free for a while.
    """
    lines = max(6 * ACCOUNTS, round(ACCOUNTS * seconds / DELAY))
    with run_farm(ACCOUNTS, "--delay", f"{DELAY:g}", WEB_CONCURRENCY="1") as farm:
        batch = measure_alone(farm, lines)
        load_farm(farm, ONSET_SECONDS)
        load_seconds = min(MAX_LOAD_SECONDS, max(MIN_LOAD_SECONDS, seconds))
        alone = load_farm(farm, load_seconds)
        return [*batch, *measure_beside_load(farm, alone, load_seconds)]


def measure_alone(farm: MeasuredFarm, lines: int) -> list[Measurement]:
    client, before = BatchClient(farm.port), Samples()
    for _ in range(5):
        before.take(farm)
    served, started = farm.upstream.read_counters()["served"], time.monotonic()
    batch_id = client.run(lines)
    samples = Samples()
    while (batch := client.read(batch_id))["status"] not in ENDED:
        samples.take(farm, batch_id)
        time.sleep(SAMPLE_SECONDS)
    elapsed = time.monotonic() - started
    samples.served = [(count - served, busy) for count, busy in samples.served]
    found = client.count_custom_ids(batch)
    return [
        at_least(SCENARIO, "share of the accounts in use while it runs", samples.busy_share(lines, ACCOUNTS), 0.98),
        at_most(SCENARIO, "MB more in the front, most", max(samples.front) - max(before.front), 20),
        unbounded(SCENARIO, "MB more in Redis, most", round(max(samples.redis) - max(before.redis), 1)),
        unbounded(SCENARIO, "KB of results in Redis, most", round(max(samples.results) / 1000)),
        exactly(SCENARIO, "lines without just one result", lines - sum(count == 1 for count in found.values())),
        exactly(SCENARIO, "requests at the upstream beside one a line", read_served(farm) - served - lines),
        exactly(SCENARIO, "collisions at the upstream", farm.upstream.read_counters()["collisions"]),
        unbounded(SCENARIO, "lines", lines),
        unbounded(SCENARIO, "seconds from the upload to the end", round(elapsed, 1)),
    ]


def measure_beside_load(farm: MeasuredFarm, alone: LoadResult, seconds: float) -> list[Measurement]:
    client = BatchClient(farm.port)
    lines = round(3 * ACCOUNTS * (seconds + 6 * DELAY) / DELAY)
    batch_id = client.run(lines)
    while not client.read(batch_id)["request_counts"]["completed"]:
        time.sleep(SAMPLE_SECONDS)
    onset = load_farm(farm, ONSET_SECONDS)
    samples = Samples()
    with sampling(lambda: samples.take(farm)):
        beside = load_farm(farm, seconds)
    was_running = client.read(batch_id)["status"] == "in_progress"
    client.call(f"/v1/batches/{batch_id}/cancel", b"")
    started = time.monotonic()
    while client.read(batch_id)["status"] not in ENDED:
        time.sleep(0.1)
    busy = [count for _, count in samples.served[5:-5]]
    first_bytes = [result.percentile(0.95, result.first_bytes) for result in (alone, beside, onset)]
    return [
        at_most(SCENARIO, "p95 wait of interactive requests, as a ratio", first_bytes[1] / first_bytes[0], 1.2),
        unbounded(SCENARIO, "p95 wait without the batch, s", round(first_bytes[0], 3)),
        unbounded(SCENARIO, "p95 wait with the batch, s", round(first_bytes[1], 3)),
        unbounded(SCENARIO, "p95 wait as the load begins, s", round(first_bytes[2], 3)),
        unbounded(SCENARIO, "share of the accounts in use beside load", round(sum(busy) / len(busy) / ACCOUNTS, 3)),
        exactly(SCENARIO, "errors at interactive clients", sum((alone.errors + beside.errors).values())),
        exactly(SCENARIO, "loads that outlasted the batch", not was_running),
        at_most(SCENARIO, "seconds until the batch was cancelled", time.monotonic() - started, 5),
    ]


@contextmanager
def sampling(take: Callable[[], None]) -> Iterator[None]:
    """Takes samples in a thread, as long as the block runs."""
    stopped = Event()

    def run() -> None:
        while not stopped.wait(SAMPLE_SECONDS):
            take()

    thread = Thread(target=run, daemon=True)
    thread.start()
    yield
    stopped.set()
    thread.join()


def load_farm(farm: MeasuredFarm, seconds: float) -> LoadResult:
    return asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, CLIENTS, seconds)))


def read_served(farm: MeasuredFarm) -> int:
    return farm.upstream.read_counters()["served"]
