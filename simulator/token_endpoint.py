"""The simulator's OAuth endpoints: token requests (RFC 6749) and revocation (RFC 7009)."""

from typing import Any
from urllib.parse import parse_qs

from simulator.accounts import TokenGrant, TokenRefused
from simulator.errors import encode_error
from simulator.http_connection import Request, encode_response
from simulator.responses import encode_json
from simulator.sign_in.oauth_endpoints import DEVICE_GRANT, read_form, redeem
from simulator.simulation import Simulation


def exchange_token(simulation: Simulation, request: Request) -> bytes:
    """The HTTP response to a token request."""
    if simulation.faults.draw_token_error():
        simulation.counters["fault_token_error"] += 1
        return encode_error(503, "temporarily_unavailable", "the simulator was told to fail")
    try:
        if simulation.faults.draw_token_refusal():
            simulation.counters["fault_token_refusal"] += 1
            raise TokenRefused("invalid_grant")
        body = grant_tokens(simulation, request)
    except TokenRefused as refused:
        error = {"error": str(refused), "error_description": "refused by the simulator"}
        return encode_response(400, encode_json(error))
    return encode_response(200, encode_json(body))


def grant_tokens(simulation: Simulation, request: Request) -> dict[str, Any]:
    """The token response to a refresh token or to a code of a sign-in. Raises TokenRefused."""
    if request.body.startswith(b"grant_type=") or b"&grant_type=" in request.body:
        fields = read_form(request)
        if fields.get("grant_type") in ("authorization_code", DEVICE_GRANT):
            return redeem(simulation, request, fields)
    return build_token_response(simulation.accounts.refresh(find_refresh_token(request)))


def revoke_token(simulation: Simulation, request: Request) -> bytes:
    """The HTTP response to a revocation (RFC 7009 section 2.1)."""
    simulation.accounts.revoke(parse_qs(request.body.decode("latin-1")).get("token", [""])[0])
    return encode_response(200, b"")


def find_refresh_token(request: Request) -> str:
    """The refresh token in a form (RFC 6749), in JSON or, without a body, as bearer token. Raises TokenRefused."""
    if not request.body:
        return request.bearer_token()
    if "json" in request.headers.get("content-type", ""):
        fields = request.json() or {}
    else:
        fields = {name: values[0] for name, values in parse_qs(request.body.decode("latin-1")).items()}
    if fields.get("grant_type") != "refresh_token":
        raise TokenRefused("unsupported_grant_type")
    return str(fields.get("refresh_token", ""))


def build_token_response(grant: TokenGrant) -> dict[str, Any]:
    """The body of a token response (RFC 6749 section 5.1)."""
    body: dict[str, Any] = {
        "access_token": grant.access_token,
        "token_type": "Bearer",
        "expires_in": int(grant.expires_in) if grant.expires_in >= 1 else grant.expires_in,
    }
    return body | ({"refresh_token": grant.refresh_token} if grant.refresh_token else {})
