"""Exponential backoff."""

from shared.backoff import compute_backoff


def test_backoff_doubles_up_to_its_bound_however_often():
    assert [compute_backoff(0.5, 15, doublings) for doublings in range(7)] == [0.5, 1, 2, 4, 8, 15, 15]
    # 2 ** 1024 is more than a float holds.
    assert compute_backoff(0.5, 15, 100_000) == 15
