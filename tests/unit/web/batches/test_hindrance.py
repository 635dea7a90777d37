"""What keeps the requests of a batch from being run, and when no further line begins."""

from typing import Any

import pytest

from shared.api_keys.api_key import ApiKey
from shared.batches.batch import Batch
from shared.batches.hindrances import HINDRANCES
from web.batches.lines import line_request
from web.batches.progress.hindrance import (
    PATIENCE_SECONDS,
    REFUSALS,
    FarmState,
    find_hindrance,
    may_begin,
    name_pool_hindrance,
)
from web.batches.result_files import MAX_RESULT_BYTES


def build_key(**fields: Any) -> ApiKey:
    return ApiKey(id="k", hint="sk-…", created_at=0, **fields)


def build_batch(result_bytes: int = 0) -> Batch:
    return Batch("b", "k", "/v1/completions", "f", "f", "f", 1, "24h", 2, result_bytes=result_bytes)


@pytest.mark.parametrize(
    ("key", "result_bytes", "expected"),
    [
        (build_key(), MAX_RESULT_BYTES, ""),
        (build_key(), MAX_RESULT_BYTES + 1, "results_wait"),
        (build_key(enabled=False), 0, "key_disabled"),
        (build_key(expires_at=1), 0, "key_expired"),
    ],
    ids=["good", "store away", "disabled", "expired"],
)
def test_lines_need_a_key_that_may_run_them_and_room(key: ApiKey, result_bytes: int, expected: str):
    batch = build_batch(result_bytes)
    assert may_begin(key, batch) is not bool(expected)
    assert find_hindrance(key, batch, FarmState(), 0, []) == expected
    assert not may_begin(None, batch)


@pytest.mark.parametrize(
    ("farm", "refusals", "expected"),
    [
        (FarmState(), ["insufficient_quota", "insufficient_quota", "queue_full"], "key_over_quota"),
        (FarmState(), ["insufficient_quota", ""], ""),
        (FarmState(), ["shutting_down"], ""),
        (FarmState(), [], ""),
        (FarmState(pool_hindrance="no_account"), ["insufficient_quota"], "no_account"),
        (FarmState(store_hindrance="file_store_full"), [], ""),
    ],
)
def test_what_may_pass_by_itself_is_a_hindrance_after_a_while(farm: FarmState, refusals: list[str], expected: str):
    assert find_hindrance(build_key(), build_batch(), farm, PATIENCE_SECONDS, refusals) == expected
    assert find_hindrance(build_key(), build_batch(), farm, PATIENCE_SECONDS - 1, refusals) == ""


def test_paused_pool_is_told_at_once_and_a_full_store_as_the_cause_of_results_that_wait():
    assert find_hindrance(build_key(), build_batch(), FarmState(pool_hindrance="pool_paused"), 0, []) == "pool_paused"
    farm = FarmState(store_hindrance="file_store_full")
    assert find_hindrance(build_key(), build_batch(MAX_RESULT_BYTES + 1), farm, 0, []) == "file_store_full"


@pytest.mark.parametrize(
    ("active", "is_down", "is_paused", "expected"),
    [
        (1, False, False, ""),
        (0, False, False, "no_account"),
        (1, True, False, "upstream_down"),
        (0, True, True, "pool_paused"),
    ],
)
def test_pool_takes_requests_or_tells_why_not(active: int, is_down: bool, is_paused: bool, expected: str):
    assert name_pool_hindrance(active, is_down, is_paused) == expected


def test_refusals_are_those_that_are_waited_out_and_each_has_its_words():
    assert REFUSALS.keys() <= line_request.REFUSALS and set(REFUSALS.values()) <= HINDRANCES.keys()
