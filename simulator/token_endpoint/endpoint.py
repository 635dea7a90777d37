"""The simulator's OAuth endpoints: token requests (RFC 6749) and revocation (RFC 7009)."""

from typing import Any
from urllib.parse import parse_qs, urlencode

from simulator.accounts import TokenGrant, TokenRefused
from simulator.errors import encode_error
from simulator.http_connection import Request, encode_response
from simulator.responses import encode_json
from simulator.sign_in.oauth_endpoints import DEVICE_GRANT, read_form, redeem
from simulator.simulation import Simulation
from simulator.token_endpoint.credential_kinds import authenticate_client, authenticate_service_account
from simulator.token_endpoint.token_rules import JWT_GRANT, TOKEN_PATH, TokenRules, token_audiences


def exchange_token(simulation: Simulation, request: Request) -> bytes:
    """The HTTP response to a token request."""
    if simulation.faults.draw_token_error():
        simulation.counters["fault_token_error"] += 1
        return encode_error(503, "temporarily_unavailable", "the simulator was told to fail")
    try:
        if simulation.faults.draw_token_refusal():
            simulation.counters["fault_token_refusal"] += 1
            raise TokenRefused("invalid_grant")
        response = grant_tokens(simulation, request)
    except TokenRefused as refused:
        error = {"error": str(refused), "error_description": "refused by the simulator"}
        return encode_response(401 if str(refused) == "invalid_client" else 400, encode_json(error))
    if find_rules(simulation, request).form:
        return encode_response(200, urlencode(response).encode(), "application/x-www-form-urlencoded")
    return encode_response(200, encode_json(response))


def grant_tokens(simulation: Simulation, request: Request) -> dict[str, Any]:
    """The token response to a grant or to a code of a sign-in. Raises TokenRefused."""
    if request.body.startswith(b"grant_type=") or b"&grant_type=" in request.body:
        fields = read_form(request)
        if fields.get("grant_type") in ("authorization_code", DEVICE_GRANT):
            return redeem(simulation, request, fields)
    return build_token_response(grant_token(simulation, request))


def revoke_token(simulation: Simulation, request: Request) -> bytes:
    """The HTTP response to a revocation (RFC 7009 section 2.1)."""
    simulation.accounts.revoke(parse_qs(request.body.decode("latin-1")).get("token", [""])[0])
    return encode_response(200, b"")


def grant_token(simulation: Simulation, request: Request) -> TokenGrant:
    """The tokens for a grant, once the request is as the rules want it. Raises TokenRefused."""
    accounts, rules = simulation.accounts, find_rules(simulation, request)
    if not request.body:
        return accounts.refresh(request.bearer_token())
    fields = read_fields(request)
    rules.check_parameters(fields)
    grant_type = fields.get("grant_type")
    if grant_type == "client_credentials":
        return accounts.grant(authenticate_client(accounts, *rules.find_client(request, fields)))
    rules.check_client(request, fields)
    if grant_type == JWT_GRANT:
        audiences = token_audiences(request)
        return accounts.grant(authenticate_service_account(accounts, fields.get("assertion", ""), audiences))
    if grant_type != "refresh_token":
        raise TokenRefused("unsupported_grant_type")
    return accounts.refresh(str(fields.get("refresh_token", "")))


def find_rules(simulation: Simulation, request: Request) -> TokenRules:
    """The rules of the endpoint that was asked."""
    return simulation.token_rules[request.path.partition("?")[0].removeprefix(TOKEN_PATH).removeprefix("/")]


def read_fields(request: Request) -> dict[str, Any]:
    """The fields of a form (RFC 6749) or of JSON."""
    if "json" in request.headers.get("content-type", ""):
        return request.json() or {}
    return {name: values[0] for name, values in parse_qs(request.body.decode("latin-1")).items()}


def build_token_response(grant: TokenGrant) -> dict[str, Any]:
    """The body of a token response (RFC 6749 section 5.1)."""
    body: dict[str, Any] = {
        "access_token": grant.access_token,
        "token_type": "Bearer",
        "expires_in": int(grant.expires_in) if grant.expires_in >= 1 else grant.expires_in,
    }
    return body | ({"refresh_token": grant.refresh_token} if grant.refresh_token else {})
