"""Batches by OpenAI's unmodified Python SDK, on a farm whose processes are killed."""

import io
import json
from typing import Any

import pytest
from openai import APIConnectionError, OpenAI
from openai.types import Batch

from tests.system.farm import KEY, Farm
from tests.waiting import eventually


def build_input(count: int) -> bytes:
    lines = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": f"Line {number}"}]},
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.fixture
def client(farm: Farm) -> OpenAI:
    return OpenAI(base_url=f"{farm.url}/v1", api_key=KEY)


def create(client: OpenAI, count: int, **fields: Any) -> Batch:
    uploaded = client.files.create(file=("book.jsonl", io.BytesIO(build_input(count))), purpose="batch")
    return client.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h", **fields
    )


def wait_for_end(client: OpenAI, batch: Batch, within: float = 90.0) -> Batch:
    def is_over() -> bool:
        return client.batches.retrieve(batch.id).status in ("completed", "failed", "expired", "cancelled")

    eventually(is_over, within)
    return client.batches.retrieve(batch.id)


def read_ids(client: OpenAI, file_id: str | None) -> list[str]:
    content = client.files.content(file_id).read() if file_id else b""
    return sorted(json.loads(line)["custom_id"] for line in content.splitlines())


def expect_ids(count: int) -> list[str]:
    return sorted(f"line-{number}" for number in range(count))


def test_a_batch_is_uploaded_run_and_downloaded(client: OpenAI, farm: Farm):
    batch = create(client, 30, metadata={"book": "a"})
    ended = wait_for_end(client, batch)
    assert ended.status == "completed" and ended.metadata == {"book": "a"} and ended.model == "m"
    assert ended.request_counts and ended.request_counts.completed == ended.request_counts.total == 30
    assert ended.usage and ended.usage.total_tokens > 30
    assert read_ids(client, ended.output_file_id) == expect_ids(30) and ended.error_file_id is None
    assert batch.id in [each.id for each in client.batches.list(limit=1)]
    assert client.files.delete(str(ended.output_file_id)).deleted
    assert farm.json("batches", "show", batch.id)["request_counts"]["completed"] == 30


def test_a_batch_is_cancelled_within_seconds(client: OpenAI, farm: Farm):
    farm.upstream.pace(delay=0.5)
    batch = create(client, 400)
    eventually(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    assert farm.json("status")["batches"] == {"in_progress": 1}
    assert "\nbatches: 1 in_progress\n" in farm.command("status").stdout
    assert client.batches.cancel(batch.id).status == "cancelling"
    ended = wait_for_end(client, batch, within=15)
    assert ended.status == "cancelled"
    found = read_ids(client, ended.output_file_id) + read_ids(client, ended.error_file_id)
    assert sorted(found) == expect_ids(400)


def count_completed(client: OpenAI, batch: Batch) -> int:
    """0 while no front serves."""
    try:
        counts = client.with_options(max_retries=0).batches.retrieve(batch.id).request_counts
    except APIConnectionError:
        return 0
    return counts.completed if counts else 0


@pytest.mark.slow
def test_no_line_is_lost_or_doubled_when_processes_are_killed(client: OpenAI, farm: Farm):
    """All fronts, then a worker process, by kill -9."""
    farm.upstream.pace(delay=0.2)
    count = 140
    batch = create(client, count)

    def wait_for_lines(lines: int) -> None:
        eventually(lambda: count_completed(client, batch) >= lines, within=60)

    wait_for_lines(20)
    for front in farm.processes("gunicorn"):
        front.kill()
    wait_for_lines(70)
    farm.processes("-m workers")[0].kill()

    ended = wait_for_end(client, batch, within=120)

    assert ended.status == "completed" and ended.request_counts
    assert read_ids(client, ended.output_file_id) == expect_ids(count)
    assert ended.request_counts.completed == count
    # What was in flight has run twice upstream: the window of the fronts, the accounts of the worker process.
    assert count <= farm.upstream.counters()["served"] <= count + 2 * 8 + 8
