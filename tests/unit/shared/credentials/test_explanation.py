"""Each state of a credential says by which rule it came about, and what happens next."""

import pytest

from shared.credentials.explanation import EXPLANATIONS, explain_state
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
