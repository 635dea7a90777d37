"""Each state of a credential says by which rule it came about, and what happens next."""

from dataclasses import replace

import pytest

from shared.credentials.activity.activity import LastFailure
from shared.credentials.evidence import TOKEN_ENDPOINT, Evidence
from shared.credentials.explanation import CAN_SERVE, EXPLANATIONS, Circumstances, explain_record, explain_state
from shared.credentials.records import CredentialRecord
from workers.attempt.outcomes import KEY_REFUSALS, TOKEN_WAITS
from workers.worker.credential_health import CREDENTIAL_FAULTS, UPSTREAM_FAULTS


@pytest.mark.parametrize(
    "reason", sorted({*CREDENTIAL_FAULTS, *UPSTREAM_FAULTS, *TOKEN_WAITS, *KEY_REFUSALS, "no_token"})
)
def test_every_reason_of_a_cooldown_is_explained(reason: str):
    explanation = explain_state("cooling", f"{reason}: some_code")
    assert reason in EXPLANATIONS
    assert (bool(explanation.rule), bool(explanation.next), explanation.code) == (True, True, "some_code")


def test_each_state_has_an_explanation_of_its_own():
    found = {
        explain_state(state, reason)
        for state, reason in (
            *(("active", ""), ("dead", "invalid_grant"), ("dead", "api_key_refused"), ("cooling", "api_key_refused")),
            *(("disabled", "by a person"), ("disabled", "revoked"), ("foreign", "belongs to another")),
        )
    }
    assert len(found) == 7
    assert explain_state("disabled", "a reason of a later version").rule == "a reason of a later version"


def test_code_of_the_evidence_goes_before_that_of_the_reason():
    evidence = Evidence(TOKEN_ENDPOINT, 400, "invalid_target")
    assert explain_state("cooling", "no_token: http_400", evidence).code == "invalid_target"


ACTIVE = CredentialRecord("c1", "default", "active", owner="here", refreshed_at=100, access_expires=200)
DOWN = LastFailure(300, "token_endpoint_down", Evidence(TOKEN_ENDPOINT, 503, "busy"))


@pytest.mark.parametrize(
    ("record", "failure", "circumstances", "words"),
    [
        (ACTIVE, None, Circumstances(is_suspended=True), "rq suspend"),
        (ACTIVE, None, Circumstances(is_paused=True), "an operator has paused its pool"),
        (ACTIVE, None, Circumstances(has_worker_process=False), "no worker process runs"),
        (ACTIVE, None, Circumstances(is_upstream_down=True), "fails for the whole pool"),
        (replace(ACTIVE, owner=""), None, Circumstances(), "no worker has it"),
        (ACTIVE, DOWN, Circumstances(), "its token endpoint fails"),
        (ACTIVE, DOWN, Circumstances(is_token_endpoint_down=True), "fails for the whole pool"),
    ],
)
def test_active_credential_that_serves_nothing_says_why(record, failure, circumstances, words: str):
    explanation = explain_record(record, failure, circumstances)
    assert words in explanation.rule
    assert explanation.next != CAN_SERVE.next


@pytest.mark.parametrize(
    ("record", "failure"),
    [
        (ACTIVE, None),
        (replace(ACTIVE, access_expires=400), DOWN),
        (replace(ACTIVE, refreshed_at=301, access_expires=250), DOWN),
        (replace(ACTIVE, kind="api_key"), DOWN),
        (ACTIVE, replace(DOWN, outcome="rate_limited")),
    ],
)
def test_active_credential_can_serve_whatever_has_failed_before(record, failure):
    assert explain_record(record, failure, Circumstances()) == CAN_SERVE


def test_state_other_than_active_is_explained_by_its_reason():
    record = replace(ACTIVE, state="cooling", reason="rate_limited")
    assert explain_record(record, None, Circumstances(is_suspended=True)) == explain_state("cooling", "rate_limited")
