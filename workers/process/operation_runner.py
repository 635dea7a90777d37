"""What an operator's errand does with one credential: a real refresh, a tiny chat, a revocation; it holds no lease.

It runs in the credential's worker, between two requests, so that there is never a second one on the account (I1).
"""

import json
import time
from typing import Any

import requests
from urllib3 import BaseHTTPResponse

from shared.errors import FarmError
from shared.protocol.credential_operations import CredentialOperation
from shared.protocol.messages import RelayRequest
from workers.attempt.cancel_scope import Cancelled, CancelScope
from workers.credentials.access_token import TOKEN_FAILURES
from workers.credentials.token_endpoint import TIMEOUT_SECONDS, build_revocation_request
from workers.response.error_sniffer import ErrorSniffer, InvalidResponse
from workers.upstream.client import ResponseTruncated, UpstreamUnreachable, create_shared_session, iter_body
from workers.worker.job_runner import JobRunner

#: Seconds that the chat of a test may take.
CHAT_TIMEOUT_SECONDS = 30.0
#: Bytes of an answer that a test reads.
MAX_BODY_BYTES = 1024 * 1024


def run_operation(serving: JobRunner, errand: CredentialOperation) -> dict[str, Any]:
    """What came of it, as JSON values; it raises nothing that it can name."""
    try:
        if errand.kind == "revoke":
            return revoke(serving)
        found = refresh(serving)
        return {**found, **chat(serving, errand.model)} if errand.kind == "test" else found
    except TOKEN_FAILURES as error:
        serving.health.handle_token_failure(error)
        return {"ok": False, "error": str(error)}
    except Cancelled as ended:
        return {"ok": False, "error": f"the chat was ended: {ended.reason}"}
    except (UpstreamUnreachable, ResponseTruncated) as error:
        return {"ok": False, "error": f"the upstream can't be reached or broke off ({error})"}
    except FarmError as error:
        return {"ok": False, "error": str(error)}


def refresh(serving: JobRunner) -> dict[str, Any]:
    """A real refresh, whatever token there is."""
    began = time.monotonic()
    serving.token.force_refresh()
    return {"ok": True, "refresh_ms": milliseconds_since(began)}


def chat(serving: JobRunner, model: str) -> dict[str, Any]:
    """A chat of one word."""
    with CancelScope(serving.deadlines, serving.holds_lease) as section:
        section.set_deadline("timeout", CHAT_TIMEOUT_SECONDS)
        model = model or serving.first_model() or fetch_first_model(serving)
        asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        token, began = serving.token.get(), time.monotonic()
        response = serving.open_upstream().call(
            build_request("POST", "/chat/completions"), json.dumps(asked).encode(), token
        )
        try:
            body, first = read_body(response, began)
            error = describe_error(response, body)
        finally:
            response.close()
        found = {
            "status": response.status,
            "model": model,
            "first_byte_ms": first,
            "chat_ms": milliseconds_since(began),
        }
        return {**found, "ok": not error, "error": error}


def read_body(response: BaseHTTPResponse, began: float) -> tuple[bytes, int]:
    """The body, as far as it is looked at, and when its first byte came. Raises AnswerCut."""
    body, first = b"", 0
    for data in iter_body(response):
        first = first or milliseconds_since(began)
        body += data[: MAX_BODY_BYTES - len(body)]
    return body, first


def describe_error(response: BaseHTTPResponse, body: bytes) -> str:
    """Why that is no answer, '' when it is one."""
    if response.status >= 300:
        return f"the upstream answered {response.status}"
    try:
        opening = ErrorSniffer(response.headers.get("content-type", ""))
        opening.feed(body)
        opening.flush()
    except InvalidResponse as none:
        return f"the upstream answered with {none}"
    return ""


def fetch_first_model(serving: JobRunner) -> str:
    """The first model of the upstream's own list. Raises FarmError when there is none."""
    response = serving.open_upstream().call(build_request("GET", "/models"), b"", serving.token.get())
    try:
        listed = json.loads(b"".join(iter_body(response))[:MAX_BODY_BYTES])
        return str(listed["data"][0]["id"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise FarmError("the upstream lists no model; name one for the test") from None
    finally:
        response.close()


def build_request(method: str, path: str) -> RelayRequest:
    """A request that nobody waits for."""
    headers = {"content-type": "application/json"} if method == "POST" else {}
    return RelayRequest("errand", "", path, headers, "", "", 0.0, 0.0, method=method)


def revoke(serving: JobRunner) -> dict[str, Any]:
    """Revokes the refresh token (RFC 7009) and disables the credential."""
    pool = serving.pool
    if not pool.revocation_url:
        return {"ok": False, "error": f"pool {pool.name} has no revocation endpoint (FARM_REVOCATION_URL)"}
    began = time.monotonic()
    try:
        asked = build_revocation_request(pool, serving.token.load_refresh_token())
        session = create_shared_session(pool.revocation_url, 1, pool.proxy, pool.ca_bundle)
        answer = session.post(pool.revocation_url, timeout=TIMEOUT_SECONDS, allow_redirects=False, **asked)
    except requests.RequestException as error:
        return {"ok": False, "error": f"the revocation endpoint can't be reached: {type(error).__name__}"}
    if answer.status_code != 200:
        return {"ok": False, "status": answer.status_code, "error": f"the endpoint answered {answer.status_code}"}
    serving.health.disable("revoked")
    return {"ok": True, "status": 200, "refresh_ms": milliseconds_since(began)}


def milliseconds_since(since: float) -> int:
    """Whole ones, by the monotonic clock."""
    return round(1000 * (time.monotonic() - since))
