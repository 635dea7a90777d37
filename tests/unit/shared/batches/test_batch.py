"""The record of a batch, and OpenAI's object."""

import pytest
from openai.types import Batch as OpenAiBatch

from shared.batches.batch import Batch, encode_fields, parse_window
from shared.batches.running_line import RunningLine
from shared.decoding import UnreadableRecord


def build_batch(**fields: object) -> Batch:
    values = {"id": "batch_1", "key": "k", "endpoint": "/v1/completions", "input_file_id": "file-1"}
    files = {"output_file": "file-2", "error_file": "file-3"}
    times = {"created_at": 10, "completion_window": "24h", "expires_at": 20}
    return Batch(**{**values, **files, **times, **fields})  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_stored():
    batch = build_batch(metadata={"a": "ü"}, errors=[{"code": "x"}], output_parts=[1, 2], total=3)
    stored = {name.encode(): str(value).encode() for name, value in encode_fields(vars(batch)).items()}
    assert Batch.decode(stored) == batch


def test_a_model_that_has_no_utf_8_is_escaped():
    """JSON can express lone surrogates, Redis can't."""
    stored = {name.encode(): str(value).encode() for name, value in encode_fields({"model": "m\ud800"}).items()}
    assert stored == {b"model": rb"m\ud800"}


def test_a_broken_record_is_unreadable():
    stored = {name.encode(): str(value).encode() for name, value in encode_fields(vars(build_batch())).items()}
    with pytest.raises(UnreadableRecord):
        Batch.decode({**stored, b"total": b"many"})


def test_failed_requests_are_counted_by_reason():
    stored = {name.encode(): str(value).encode() for name, value in encode_fields(vars(build_batch())).items()}
    assert Batch.decode({**stored, b"failed:http_400": b"2"}).failures == {"http_400": 2}


def test_an_unfinished_batch_shows_no_file():
    batch = build_batch(status="in_progress", output_parts=[5], total=4, completed=1, failed=1)
    shown = OpenAiBatch.model_validate(batch.describe(), strict=True)
    assert shown.output_file_id is None and shown.errors is None and shown.in_progress_at is None
    assert shown.request_counts and (shown.request_counts.total, shown.request_counts.failed) == (4, 1)


def test_a_finished_batch_shows_the_files_that_have_lines():
    shown = build_batch(status="completed", output_parts=[5], input_tokens=3, output_tokens=4, completed_at=15)
    parsed = OpenAiBatch.model_validate(shown.describe(), strict=True)
    assert (parsed.output_file_id, parsed.error_file_id, parsed.completed_at) == ("file-2", None, 15)
    assert parsed.usage and parsed.usage.total_tokens == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86_400),
        ("90s", 90),
        ("5m", 300),
        ("7d", 604_800),
        ("31d", None),
        ("0h", None),
        ("24", None),
        ("1３h", None),
        ("", None),
    ],
)
def test_completion_windows_are_parsed(text: str, seconds: int | None):
    assert parse_window(text) == seconds


def test_a_running_line_is_read_as_it_was_stored():
    line = RunningLine("front", "nonce", 5, 6, 7)
    assert RunningLine.decode(line.encode().encode()) == line
    with pytest.raises(UnreadableRecord):
        RunningLine.decode(b"front nonce x 1 2")
