"""What goes in and out of the simulator besides answers: JSON bodies, errors, token requests; no sockets."""

import json
from typing import Any
from urllib.parse import parse_qs

from simulator import answers
from simulator.accounts import Grant, Refused
from simulator.wire import Request, answer


def read_json(body: bytes) -> dict[str, Any] | None:
    """A JSON object; None when it is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def error(status: int, code: str, message: str, extra: str = "") -> bytes:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "simulated", "param": None, "code": code}}
    return answer(status, answers.dump(body), extra=extra)


def presented_token(request: Request) -> str:
    """The refresh token of a token request: form (RFC 6749), JSON, or bearer. Raises Refused."""
    if not request.body:
        return request.headers.get("authorization", "").removeprefix("Bearer ")
    if "json" in request.headers.get("content-type", ""):
        fields = read_json(request.body) or {}
    else:
        fields = {name: values[0] for name, values in parse_qs(request.body.decode("latin-1")).items()}
    if fields.get("grant_type") != "refresh_token":
        raise Refused("unsupported_grant_type")
    return str(fields.get("refresh_token", ""))


def revoked_token(request: Request) -> str:
    """The token of a revocation (RFC 7009 section 2.1), '' for none."""
    return parse_qs(request.body.decode("latin-1")).get("token", [""])[0]


def grant_body(grant: Grant) -> dict[str, Any]:
    """A token answer (RFC 6749 section 5.1)."""
    body: dict[str, Any] = {
        "access_token": grant.access_token,
        "token_type": "Bearer",
        "expires_in": int(grant.expires_in) if grant.expires_in >= 1 else grant.expires_in,
    }
    return body | ({"refresh_token": grant.refresh_token} if grant.refresh_token else {})
