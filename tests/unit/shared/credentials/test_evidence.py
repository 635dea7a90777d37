"""The response behind a state is kept by status and code, and nothing else of it."""

import pytest

from shared.credentials.evidence import NO_EVIDENCE, TOKEN_ENDPOINT, UPSTREAM, Evidence, clean_code


@pytest.mark.parametrize(
    "evidence",
    [
        NO_EVIDENCE,
        Evidence(UPSTREAM, 429, "rate_limit_exceeded", 30.0),
        Evidence(UPSTREAM, 0, "upstream_unreachable"),
        Evidence(UPSTREAM, 401),
        Evidence(TOKEN_ENDPOINT, 400, "invalid_grant"),
    ],
)
def test_evidence_survives_its_form_in_redis(evidence: Evidence):
    wait = "" if evidence.retry_after is None else str(evidence.retry_after)
    assert Evidence.decode(evidence.encode(), wait) == evidence


@pytest.mark.parametrize("stored", ["", "nonsense", "upstream", "upstream soon", "{}", "upstream -1 x"])
def test_what_another_version_has_stored_is_no_evidence(stored: str):
    assert Evidence.decode(stored) == NO_EVIDENCE


def test_unreadable_wait_leaves_status_and_code():
    assert Evidence.decode("upstream 429 slow", "soon") == Evidence(UPSTREAM, 429, "slow")


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("insufficient_quota", "insufficient_quota"),
        ("InvalidGrant", "invalidgrant"),
        ("AADSTS50173", "aadsts50173"),
        (1234, "1234"),
        ("rate-limit.requests_per_min", "rate-limit.requests_per_min"),
        ("The token has expired", ""),
        ("sk-abcdef0123456789abcdef", ""),
        ("0123456789abcdef0123", ""),
        ("e" * 65, ""),
        ("code\nwith a line break", ""),
        (None, ""),
        (True, ""),
        ({"code": "x"}, ""),
        ("", ""),
    ],
)
def test_text_and_tokens_are_no_codes(code: object, shown: str):
    assert clean_code(code) == shown


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (NO_EVIDENCE, ""),
        (Evidence(UPSTREAM, 429, "slow", 30.0), "upstream: HTTP 429 slow, wait 30 s"),
        (Evidence(TOKEN_ENDPOINT, 503), "token endpoint: HTTP 503"),
        (Evidence(UPSTREAM, 0, "upstream_unreachable"), "upstream: upstream_unreachable"),
        (Evidence(TOKEN_ENDPOINT), "token endpoint: no response"),
    ],
)
def test_people_read_who_has_said_what(evidence: Evidence, text: str):
    assert evidence.describe() == text
