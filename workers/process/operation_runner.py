"""Runs an operator's operation on a credential: refresh, test (a refresh and a tiny chat), or revoke.

It runs in a worker of the credential, between two jobs, so it never shares the credential with a request (I1).
"""

import json
import time
from typing import Any

from urllib3 import BaseHTTPResponse

from shared.credentials.evidence import clean_code
from shared.errors import FarmError, TokenError
from shared.protocol.credential_operations import CredentialOperation
from shared.protocol.messages import RelayRequest
from shared.response.endpoints import InvalidResponse
from shared.response.error_shapes import UpstreamError, read_error
from workers.attempt.cancel_scope import Cancelled, CancelScope
from workers.attempt.outcomes import classify_token_failure
from workers.credentials.access_token import TOKEN_FAILURES
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.response.error_sniffer import ErrorSniffer, IncompleteResponse
from workers.upstream.client import (
    ResponseTruncated,
    UpstreamMisconfigured,
    UpstreamUnreachable,
    iter_body,
)
from workers.upstream.http_connection import ConnectionDropped
from workers.upstream.pool_network import create_pool_session
from workers.worker.job_runner import JobRunner

#: Seconds that the chat of a test may take.
CHAT_TIMEOUT_SECONDS = 30.0
#: Characters of the upstream's error that a test shows.
MAX_MESSAGE_LENGTH = 300
#: Bytes of a response that a test reads.
MAX_BODY_BYTES = 1024 * 1024


def run_operation(runner: JobRunner, operation: CredentialOperation) -> dict[str, Any]:
    """Returns the result as JSON values: `ok`, on failure `error`, and what was measured."""
    try:
        if operation.kind == "revoke":
            return revoke(runner)
        if operation.kind not in ("refresh", "test"):
            return {"ok": False, "error": f"this worker does not know the operation {operation.kind!r}"}
        result = refresh(runner)
        return {**result, **chat(runner, operation.model)} if operation.kind == "test" else result
    except TOKEN_FAILURES as error:
        runner.health.handle_token_failure(error)
        failed = classify_token_failure(error)
        code = failed.evidence.code or failed.outcome
        return {"ok": False, "error": str(error), "code": code, "status": failed.evidence.status}
    except Cancelled as cancelled:
        return {"ok": False, "error": f"the chat was cancelled: {cancelled.reason}", "code": cancelled.reason}
    except (UpstreamUnreachable, ConnectionDropped, ResponseTruncated) as error:
        message = f"the upstream can't be reached or broke off ({error})"
        return {"ok": False, "error": message, "code": "upstream_unreachable"}
    except UpstreamMisconfigured as error:
        return {"ok": False, "error": f"the farm can't use its setting {error}", "code": "upstream_misconfigured"}
    except FarmError as error:
        return {"ok": False, "error": str(error), "code": "not_possible"}


def refresh(runner: JobRunner) -> dict[str, Any]:
    """Asks the token endpoint, even while the access token is fresh; for an API key there is nothing to ask."""
    started_at = time.monotonic()
    runner.token.force_refresh()
    return {"ok": True, "refresh_ms": milliseconds_since(started_at)}


def chat(runner: JobRunner, model: str) -> dict[str, Any]:
    """Sends a chat of one word, for one token of completion."""
    with CancelScope(runner.deadlines, runner.holds_lease) as scope:
        scope.set_deadline("timeout", CHAT_TIMEOUT_SECONDS)
        model = model or runner.first_model() or fetch_first_model(runner)
        payload = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        token, started_at = runner.token.get(), time.monotonic()
        response = runner.open_upstream().call(
            build_request("POST", "/chat/completions"), json.dumps(payload).encode(), token
        )
        if response.status == 401 and runner.pool.credential_kind == "api_key":
            response.close()
            runner.token.get(stale=token)
        try:
            body, first_byte_ms = read_body(response, started_at)
            error = describe_error(response, body)
            failure = read_error(body) if error else UpstreamError()
        finally:
            response.close()
        return {
            "status": response.status,
            "model": model,
            "first_byte_ms": first_byte_ms,
            "chat_ms": milliseconds_since(started_at),
            "ok": not error,
            "error": error,
            "code": clean_code(failure.code) or clean_code(failure.type),
        }


def read_body(response: BaseHTTPResponse, started_at: float) -> tuple[bytes, int]:
    """Returns the first MAX_BODY_BYTES, and the milliseconds until the first byte. Raises ResponseTruncated."""
    body, first_byte_ms = b"", 0
    for data in iter_body(response):
        first_byte_ms = first_byte_ms or milliseconds_since(started_at)
        body += data[: MAX_BODY_BYTES - len(body)]
    return body, first_byte_ms


def describe_error(response: BaseHTTPResponse, body: bytes) -> str:
    """Returns why the chat failed, '' when it succeeded."""
    if response.status >= 300:
        message = read_error(body).message
        return f"the upstream returned {response.status}" + (f": {message[:MAX_MESSAGE_LENGTH]}" if message else "")
    try:
        sniffer = ErrorSniffer("/chat/completions", response.headers.get("content-type", ""))
        sniffer.feed(body)
        sniffer.flush()
    except (InvalidResponse, IncompleteResponse) as error:
        return f"the upstream sent {error}"
    return ""


def fetch_first_model(runner: JobRunner) -> str:
    """Asks the upstream for its list of models. Raises FarmError when it lists none."""
    response = runner.open_upstream().call(build_request("GET", "/models"), b"", runner.token.get())
    try:
        listing = json.loads(b"".join(iter_body(response))[:MAX_BODY_BYTES])
        return str(listing["data"][0]["id"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise FarmError("the upstream lists no model; name one for the test") from None
    finally:
        response.close()


def build_request(method: str, path: str) -> RelayRequest:
    """Builds a request without a caller."""
    headers = {"content-type": "application/json"} if method == "POST" else {}
    return RelayRequest("errand", "", path, headers, "", "", 0.0, 0.0, method=method)


def revoke(runner: JobRunner) -> dict[str, Any]:
    """Revokes the refresh token (RFC 7009) and disables the credential, which is out of service meanwhile.

    A revocation that fails puts it back into its former state.
    """
    pool = runner.pool
    if pool.credential_kind != "refresh_token":
        return {
            "ok": False,
            "error": f"only refresh tokens can be revoked, and this is another kind: {pool.credential_kind}",
        }
    if not pool.revocation_url:
        return {"ok": False, "error": f"pool {pool.name} has no revocation endpoint (FARM_REVOCATION_URL)"}
    started_at = time.monotonic()
    runner.health.suspend("being revoked")
    result: dict[str, Any] = {"ok": False}
    try:
        runner.token.wait_for_refresh()
        token = runner.token.load_refresh_token()
        session = create_pool_session(pool, pool.revocation_url, 1)
        status = TokenEndpoint(pool, session).revoke(token)
        result = {"ok": status == 200, "status": status}
    except TokenError as error:
        result["error"] = f"the refresh token was not revoked: {error}"
    finally:
        if not result["ok"]:
            runner.health.resume()
    if not result["ok"]:
        return {"error": f"the revocation endpoint returned {result.get('status')}", **result}
    runner.health.disable("revoked")
    return {**result, "refresh_ms": milliseconds_since(started_at)}


def milliseconds_since(started_at: float) -> int:
    """Whole milliseconds since a time of the monotonic clock."""
    return round(1000 * (time.monotonic() - started_at))
