"""Fronts that run batches in this process, and what their files hold."""

import json
from pathlib import Path
from typing import Any

import gevent
from redis import Redis

from shared import clock
from shared.api_keys.store import ApiKeys, hash_secret
from shared.batches.batch import Batch, new_batch_id
from shared.batches.running_line import RunningLine, begin_run
from shared.files.file_record import BATCH, FileRecord, new_file_id
from tests.integration.front_harness import FrontHarness
from tests.waiting import eventually


class BatchHarness(FrontHarness):
    """A front that runs batches once it is told to."""

    def __init__(self, redis: Redis, redis_url: str, data_dir: Path, **settings: Any) -> None:
        super().__init__(redis, redis_url, data_dir=str(data_dir), **settings)
        self.services.hub.send_heartbeat()
        self.batches, self.runner = self.services.batches, self.services.batch_runner
        self.key = ApiKeys(redis).find(hash_secret(self.secret))
        assert self.key is not None
        self._running: list[gevent.Greenlet] = []

    def start(self) -> None:
        self._running.append(gevent.spawn(self.runner.run))

    def upload(self, content: bytes, key_id: str = "") -> FileRecord:
        with self.batches.files.create() as writer:
            writer.write(content)
            return self.batches.files.commit(writer, key_id or self.key.id, "input.jsonl", BATCH)

    def create(self, content: bytes, window: int = 600, endpoint: str = "/v1/chat/completions", **fields: Any) -> Batch:
        now = int(clock.now())
        values = {
            "id": new_batch_id(),
            "key": self.key.id,
            "endpoint": endpoint,
            "input_file_id": self.upload(content, fields.get("key", "")).id,
            "output_file": new_file_id(),
            "error_file": new_file_id(),
            "created_at": now,
            "completion_window": f"{window}s",
            "expires_at": now + window,
        }
        batch = Batch(**{**values, **fields})
        self.batches.store.add(batch)
        self.runner.wake()
        return batch

    def begin_as_dead_front(self, batch: Batch, length: int = 0) -> list[RunningLine]:
        """Has a front `dead`, which keeps the lease, begin three lines of so many bytes; the first one has a result."""
        self.batches.leases.hold(batch.id, "dead")
        self.batches.store.change(batch, ("validating",), {"status": "in_progress", "total": 10})
        runs = [begin_run("dead", clock.now(), number * length, length) for number in range(3)]
        for number, run in enumerate(runs, 1):
            assert self.batches.lines.begin(batch.id, "dead", number, run, after=number - 1)
        result = b'o{"custom_id": "line-0"}\n'
        assert self.batches.lines.record_result(batch.id, 1, runs[0], "completed", result, {})
        return runs

    def get(self, batch: Batch) -> Batch:
        return self.batches.store.get(batch.id)

    def wait_for_end(self, batch: Batch, within: float = 60.0) -> Batch:
        eventually(lambda: not self.get(batch).is_unfinished, within)
        return self.get(batch)

    def read_file(self, file_id: str) -> list[dict[str, Any]]:
        """The lines of a file, none if it does not exist."""
        record = self.batches.files.find(file_id)
        content = b"".join(self.batches.files.open(record)) if record else b""
        return [json.loads(line) for line in content.splitlines()]

    def close(self) -> None:
        self.runner.stop()
        gevent.killall(self._running)
        super().close()


def build_lines(count: int, start: int = 0, **fields: Any) -> bytes:
    return b"".join(build_line(f"line-{number}", **fields) for number in range(start, start + count))


def build_line(custom_id: str, url: str = "/v1/chat/completions", **fields: Any) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": f"Translate {custom_id}."}], **fields}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode() + b"\n"
