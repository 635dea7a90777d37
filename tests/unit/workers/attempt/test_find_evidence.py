"""What a failed attempt leaves as the evidence for its credential's state."""

import json

import pytest

from shared.credentials.evidence import NO_EVIDENCE, TOKEN_ENDPOINT, UPSTREAM, Evidence
from shared.credentials.pool_rest import API_KEY_REFUSED
from shared.errors import InvalidGrant, LeaseLost, TokenEndpointDown, TokenError, TokenRefused
from workers.attempt.outcomes import Failed, classify_token_failure
from workers.attempt.upstream_errors import (
    build_failure,
    classify_disguised_error,
    classify_error_response,
    classify_invalid_response,
    find_evidence,
)
from workers.credentials.token_endpoint.token_response import TokenResponse, parse_token_response


def fail(outcome: str, code: str, **fields: bool) -> Failed:
    return Failed(outcome, build_failure(1, 502, code, "a message"), **fields)


def error_body(**error: str) -> bytes:
    return json.dumps({"error": {"message": "a text", **error}}).encode()


@pytest.mark.parametrize(
    ("failed", "status", "evidence"),
    [
        (fail("unreachable", "upstream_unreachable"), 0, Evidence(UPSTREAM, 0, "upstream_unreachable")),
        (fail("timeout", "upstream_idle_timeout"), 200, Evidence(UPSTREAM, 200, "upstream_idle_timeout")),
        (fail("upstream_error", "upstream_redirect"), 302, Evidence(UPSTREAM, 302, "upstream_redirect")),
        (fail("redis_lost", "store_unavailable", blameless=True), 200, NO_EVIDENCE),
        (classify_error_response(1, 401, {}, b""), 401, Evidence(UPSTREAM, 401)),
        (
            classify_error_response(1, 403, {}, error_body(code="account_suspended")),
            403,
            Evidence(UPSTREAM, 403, "account_suspended"),
        ),
        (
            classify_error_response(1, 429, {"retry-after": "7"}, error_body(type="rate_limit_error")),
            429,
            Evidence(UPSTREAM, 429, "rate_limit_error", 7.0),
        ),
        (classify_error_response(1, 503, {}, b"<html>down</html>"), 503, Evidence(UPSTREAM, 503)),
        (
            classify_disguised_error(1, {}, error_body(code="insufficient_quota")),
            200,
            Evidence(UPSTREAM, 429, "insufficient_quota"),
        ),
        (classify_invalid_response(1, "a page"), 200, Evidence(UPSTREAM, 200, "upstream_no_answer")),
    ],
)
def test_upstream_is_quoted_by_status_and_code(failed: Failed, status: int, evidence: Evidence):
    assert find_evidence(failed, status) == evidence


def parse(status: int, body: bytes, retry_after: str | None = None) -> Exception:
    with pytest.raises(TokenError) as raised:
        parse_token_response(TokenResponse(status, body, retry_after))
    return raised.value


def refuse(error: TokenError, status: int) -> TokenError:
    error.status = status
    return error


@pytest.mark.parametrize(
    ("error", "evidence"),
    [
        (parse(400, b'{"error": "invalid_grant"}'), Evidence(TOKEN_ENDPOINT, 400, "invalid_grant")),
        (parse(401, b'{"error": "invalid_client"}'), Evidence(TOKEN_ENDPOINT, 401, "invalid_client")),
        (parse(429, b"", "12"), Evidence(TOKEN_ENDPOINT, 429, "", 12.0)),
        (parse(503, b"", "12"), Evidence(TOKEN_ENDPOINT, 503, "", 12.0)),
        (parse(302, b""), Evidence(TOKEN_ENDPOINT, 302, "redirect_302")),
        (parse(200, b"{}"), Evidence(TOKEN_ENDPOINT, 200, "no_access_token")),
        (TokenEndpointDown("unreachable"), Evidence(TOKEN_ENDPOINT)),
        (
            refuse(TokenRefused("refused", 9.0, is_last=False, code="invalid_grant"), 400),
            Evidence(TOKEN_ENDPOINT, 400, "invalid_grant"),
        ),
        (InvalidGrant("refused twice", API_KEY_REFUSED), Evidence(UPSTREAM, 401)),
        (LeaseLost("lost"), NO_EVIDENCE),
    ],
)
def test_token_endpoint_is_quoted_by_status_and_code(error: Exception, evidence: Evidence):
    assert classify_token_failure(error).evidence == evidence
