"""Requests, keys and log entries with defaults that suit most tests."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.observability.request_log import LogEntry
from shared.protocol.messages import RelayRequest


def build_request(request_id: str = "req_1", **changes: Any) -> RelayRequest:
    now = time.time()
    values = {
        "id": request_id,
        "pool": "default",
        "path": "/chat/completions?k=v",
        "headers": {"content-type": "application/json"},
        "front": "p",
        "channel": f"farm:reply:p:{request_id}",
        "enqueued_at": now,
        "deadline": now + 60,
    }
    return RelayRequest(**(values | changes))


def build_key(**limits: Any) -> ApiKey:
    return ApiKey(id="k1", hint="sk-…", created_at=0, **limits)


def build_log_entry(number: int, **changes: Any) -> LogEntry:
    values = {"request": f"req_{number}", "key": "k1", "pool": "p", "model": "m", "status": 200, "credential": "c1"}
    return LogEntry(**{**values, "prompt_tokens": 10, "completion_tokens": 5, **changes})


@contextmanager
def stand_in_input(redis: Redis, file_id: str) -> Iterator[None]:
    """Lets batches be created on a file that does not exist."""
    is_missing = redis.hsetnx(keys.file(file_id), "expires_at", 2**40)
    yield
    if is_missing:
        redis.delete(keys.file(file_id))
