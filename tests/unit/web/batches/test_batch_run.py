"""When a batch begins no further line."""

from typing import Any

import pytest

from shared.api_keys.api_key import ApiKey
from shared.batches.batch import Batch
from web.batches.batch_run import may_begin
from web.batches.result_files import MAX_RESULT_BYTES


def build_key(**fields: Any) -> ApiKey:
    return ApiKey(id="k", hint="sk-…", created_at=0, **fields)


@pytest.mark.parametrize(
    ("key", "result_bytes", "expected"),
    [
        (build_key(), MAX_RESULT_BYTES, True),
        (build_key(), MAX_RESULT_BYTES + 1, False),
        (build_key(enabled=False), 0, False),
        (build_key(expires_at=1), 0, False),
        (None, 0, False),
    ],
    ids=["good", "store away", "disabled", "expired", "unknown"],
)
def test_lines_need_a_key_that_may_run_them_and_room(key: ApiKey | None, result_bytes: int, expected: bool):
    batch = Batch("b", "k", "/v1/completions", "f", "f", "f", 1, "24h", 2, result_bytes=result_bytes)
    assert may_begin(key, batch) is expected
