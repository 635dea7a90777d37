"""How fast a batch gets on, and when it will be done."""

from typing import Any

from web.admin.batches.schemas import BatchInfo
from web.console.batches.pace import Pace, find_pace


def build_batch(**changes: Any) -> BatchInfo:
    values = {
        "status": "in_progress",
        "in_progress_at": 100,
        "total": 40,
        "completed": 15,
        "failed": 5,
        "expires_at": 400,
    }
    return BatchInfo.model_construct(**{"finalizing_at": 0, "cancelling_at": 0, **values, **changes})


def test_batch_that_runs_is_done_at_its_average_pace():
    assert find_pace(build_batch(), 200) == Pace(12, 300)
    assert find_pace(build_batch(expires_at=299), 200) == Pace(12, 300, is_too_slow=True)


def test_batch_that_has_run_nothing_yet_has_no_pace():
    for changes in ({"completed": 0, "failed": 0}, {"in_progress_at": 0}, {"in_progress_at": 200}):
        assert find_pace(build_batch(**changes), 200) is None


def test_batch_that_is_over_tells_how_fast_it_was():
    assert find_pace(build_batch(status="completed", finalizing_at=150), 999) == Pace(24)
    assert find_pace(build_batch(status="cancelling", cancelling_at=150), 999) == Pace(24)
