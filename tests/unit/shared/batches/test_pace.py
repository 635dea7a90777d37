"""How fast a batch gets on lately, when it will be done, and whether it stands still."""

from typing import Any

import pytest

from shared.batches.batch import Batch, Sample
from shared.batches.pace import Pace, add_resumption, add_sample, describe_progress, find_pace

NOW = 100_000


def build_batch(done: int = 20, samples: list[Sample] | None = None, **changes: Any) -> Batch:
    """One that began a thousand seconds ago, of 40 requests."""
    values = {"status": "in_progress", "in_progress_at": NOW - 1000, "total": 40, "completed": done - 5, "failed": 5}
    batch = Batch("b", "k", "/v1/completions", "f", "f", "f", 1, "24h", NOW + 900)
    return Batch(**{**vars(batch), **values, "samples": samples or [], **changes})


def test_pace_is_of_the_last_minutes_and_tells_the_end():
    samples = [[NOW - 900, 0], [NOW - 310, 5], [NOW - 5, 20]]
    assert find_pace(build_batch(20, samples), NOW) == Pace(60 * 15 / 310, NOW + 20 * 310 / 15)
    assert find_pace(build_batch(22, samples), NOW).per_minute == 60 * 17 / 310


def test_batch_that_has_just_begun_is_measured_from_its_beginning():
    assert find_pace(build_batch(20, in_progress_at=NOW - 60), NOW) == Pace(20, NOW + 60)
    for changes in ({"done": 5, "failed": 0, "completed": 0}, {"in_progress_at": 0}, {"in_progress_at": NOW - 9}):
        assert find_pace(build_batch(**{"in_progress_at": NOW - 60, **changes}), NOW) == Pace()


def test_batch_that_stands_still_says_so_and_has_no_end():
    samples = [[NOW - 1000, 0], [NOW - 720, 20]]
    assert find_pace(build_batch(20, samples), NOW) == Pace(0, still_seconds=720)
    # Its front has died before it could take another sample.
    assert find_pace(build_batch(21, samples), NOW) == Pace(60 / 720, NOW + 720 * 19, still_seconds=710)


def test_slow_requests_make_no_standstill_of_a_pace():
    pace = find_pace(build_batch(20, [[NOW - 420, 19], [NOW - 200, 20]]), NOW)
    assert pace == Pace(60 / 420, NOW + 20 * 420, still_seconds=200)


def test_batch_that_is_hindered_has_no_end():
    samples = [[NOW - 60, 10], [NOW - 1, 20]]
    assert find_pace(build_batch(20, samples), NOW).done_at
    assert find_pace(build_batch(20, samples, hindrance="key_disabled"), NOW) == Pace(10)


def test_batch_that_is_over_tells_how_fast_it_was_without_what_was_not_run():
    over = {"in_progress_at": 100, "finalizing_at": 150}
    assert find_pace(build_batch(20, status="completed", **over), NOW) == Pace(24)
    skipped = {"failed": 25, "failures": {"batch_expired": 12, "batch_cancelled": 8, "http_400": 5}}
    assert find_pace(build_batch(20, status="expired", **over, **skipped), NOW) == Pace(24)
    assert find_pace(build_batch(20, status="cancelling", in_progress_at=100, cancelling_at=150), NOW) == Pace(24)
    assert describe_progress(build_batch(status="completed", hindrance="no_account", **over), NOW)["hindrance"] == ""


def test_samples_are_taken_while_requests_end_some_seconds_apart():
    samples = [[NOW - 9, 20]]
    assert add_sample(build_batch(20, samples), NOW, NOW + 3000) is None
    assert add_sample(build_batch(21, samples), NOW, NOW) is None
    assert add_sample(build_batch(21, samples), NOW, NOW + 1) == [*samples, [NOW, 21]]
    assert add_sample(build_batch(5, in_progress_at=NOW - 20), NOW, NOW) == [[NOW - 20, 0], [NOW, 5]]


def test_samples_are_kept_as_long_as_the_pace_needs_them():
    samples: list[Sample] = []
    for step in range(1000):
        now = NOW + 10 * step
        samples = add_sample(build_batch(20 + step, samples), now, now) or samples
        assert step < 2 or find_pace(build_batch(20 + step, samples, total=5000), now).per_minute == 6
    assert len(samples) == 31


def test_pace_begins_anew_after_a_standstill():
    samples = [[NOW - 600, 10], [NOW - 500, 20]]
    again = add_sample(build_batch(22, samples), NOW, NOW + 1)
    assert again == [[NOW, 22]] and find_pace(build_batch(24, again), NOW + 12) == Pace(10, NOW + 12 + 96)


@pytest.mark.parametrize(("ended_before", "expected"), [(119, None), (120, [[NOW - 120, 20], [NOW, 20]])])
def test_pace_begins_anew_when_a_hindrance_has_gone(ended_before: int, expected: list[Sample] | None):
    batch = build_batch(20, [[NOW - 150, 15], [NOW - ended_before, 20]], hindrance="no_account")
    assert add_resumption(batch, NOW) == expected


def test_standstill_is_told_until_a_request_ends_and_is_not_in_the_pace():
    samples = [[NOW - 700, 20], [NOW - 20, 20]]
    assert find_pace(build_batch(20, samples), NOW) == Pace(0, still_seconds=700)
    assert find_pace(build_batch(25, samples), NOW) == Pace(15, NOW + 60)
