"""A state comes with the status and the code that it rests on, never with the upstream's words."""

import json
from collections.abc import Callable

import pytest

from shared.credentials.evidence import TOKEN_ENDPOINT, UPSTREAM, Evidence
from shared.credentials.records import CredentialRecord
from tests.integration.harness import WorkerHarness, collect_frames
from tests.raw_upstream import RawRequest, RawUpstream, Steps, whole
from tests.redis_dump import dump_redis
from tests.waiting import eventually

StartHarness = Callable[..., WorkerHarness]


def wait_for_state(harness: WorkerHarness, state: str, reason: str) -> CredentialRecord:
    eventually(lambda: harness.credential_state() == (state, reason))
    return harness.credentials.get(harness.credential_id, ["default"])


def test_rate_limit_names_status_code_and_the_wait_as_sent(start_harness: StartHarness):
    harness = start_harness(cooling_limit=50)
    harness.upstream.faults(rate_limit=1, retry_after=120)
    harness.enqueue()
    record = wait_for_state(harness, "cooling", "rate_limited")
    assert record.evidence == Evidence(UPSTREAM, 429, "rate_limit_exceeded", 120)
    assert record.until - record.state_since < 60


def test_refused_credential_names_the_token_endpoints_status_at_each_step(start_harness: StartHarness):
    harness = start_harness(refusal_patience=1.0)
    harness.upstream.accounts(kill=0)
    harness.enqueue()
    record = wait_for_state(harness, "dead", "invalid_grant")
    refused = Evidence(TOKEN_ENDPOINT, 400, "invalid_grant")
    assert record.evidence == refused
    history = harness.credentials.get_history(harness.credential_id)
    assert [(change.reason, change.evidence) for change in history] == [
        ("invalid_grant", refused),
        ("invalid_grant_last_retry", refused),
        ("invalid_grant_retry", refused),
    ]


def test_refused_token_request_names_its_status(start_harness: StartHarness):
    harness = start_harness()
    harness.upstream.token_rules(parameters={"audience": "somewhere"})
    harness.enqueue()
    record = wait_for_state(harness, "cooling", "no_token: invalid_target")
    assert record.evidence == Evidence(TOKEN_ENDPOINT, 400, "invalid_target")


SECRET_TEXT = "the key hunter2 of Mr Smith is over its quota"


def test_upstreams_words_and_echoed_tokens_are_not_kept(start_harness: StartHarness):
    def respond(request: RawRequest) -> Steps:
        error = {"message": f"{SECRET_TEXT}: {request.token}", "code": request.token, "type": "requests_exhausted"}
        return whole({"error": error}, "application/json", "Retry-After: 90", status=429)

    with RawUpstream(respond=respond) as raw:
        harness = start_harness(pool={"upstream_url": raw.url})
        harness.enqueue()
        record = wait_for_state(harness, "cooling", "rate_limited")
        assert record.evidence == Evidence(UPSTREAM, 429, "requests_exhausted", 90)
        shown = json.dumps([record.to_dict(), *map(str, harness.credentials.get_history(record.id))])
        assert "hunter2" not in shown + dump_redis(harness.redis)
        assert raw.requests[0].token not in shown


def test_account_that_rests_by_its_headers_names_the_response(harness: WorkerHarness):
    harness.upstream.allowances(requests=1, window=100)
    collect_frames(harness.enqueue())
    record = wait_for_state(harness, "cooling", "allowance_used")
    assert (record.evidence.source, record.evidence.status) == (UPSTREAM, 200)
    assert record.evidence.retry_after == pytest.approx(100, abs=30)
