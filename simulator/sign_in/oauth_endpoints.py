"""The HTTP endpoints of signing in: discovery, consent, device authorization, keys and userinfo."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode

from simulator.accounts import TokenRefused
from simulator.errors import encode_error
from simulator.http_connection import Request, encode_response
from simulator.responses import encode_json
from simulator.sign_in.grants import Approval
from simulator.sign_in.id_tokens import describe_account
from simulator.sign_in.pages import render_consent, render_device, render_page
from simulator.simulation import Simulation

HTML = "text/html; charset=utf-8"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def handle_sign_in(simulation: Simulation, request: Request, path: str) -> bytes | None:
    """The HTTP response to a request of signing in; None when the path is none of them."""
    endpoint = ENDPOINTS.get(path)
    return endpoint(simulation, request) if endpoint else None


def find_issuer(simulation: Simulation, request: Request) -> str:
    return f"{simulation.scheme}://{request.headers.get('host', 'localhost')}"


def show_metadata(simulation: Simulation, request: Request) -> bytes:
    """OpenID Connect Discovery section 3, RFC 8414 section 2."""
    issuer = find_issuer(simulation, request)
    metadata = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "token_endpoint": f"{issuer}/oauth/token",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "device_authorization_endpoint": f"{issuer}/oauth/device",
        "userinfo_endpoint": f"{issuer}/oauth/userinfo",
        "jwks_uri": f"{issuer}/oauth/jwks",
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_GRANT],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "scopes_supported": ["openid", "email", "profile", "offline_access"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }
    return encode_response(200, encode_json(metadata))


def show_keys(simulation: Simulation, request: Request) -> bytes:
    return encode_response(200, encode_json(simulation.id_tokens.publish()))


def show_user(simulation: Simulation, request: Request) -> bytes:
    """OpenID Connect Core section 5.3."""
    try:
        account = simulation.accounts.authorize(request.bearer_token())
    except TokenRefused as refused:
        return encode_error(401, str(refused), "the access token is not valid")
    return encode_response(200, encode_json(describe_account(account.number)))


def authorize(simulation: Simulation, request: Request) -> bytes:
    """Shows the consent page, and takes the owner's decision (RFC 6749 section 4.1)."""
    form = read_form(request)
    query = form.get("request") or request.path.partition("?")[2]
    wanted = {name: values[0] for name, values in parse_qs(query).items()}
    if not wanted.get("redirect_uri") or not wanted.get("client_id"):
        page = render_page("Bad request", "client_id and redirect_uri are needed")
        return encode_response(400, page, HTML)
    if wanted.get("response_type") != "code" or wanted.get("code_challenge_method") != "S256":
        return redirect_back(simulation, request, wanted, {"error": "invalid_request"})
    if request.method != "POST":
        page = render_consent(query, wanted["client_id"], simulation.accounts.count)
        return encode_response(200, page, HTML)
    if form.get("decision") != "allow":
        return redirect_back(simulation, request, wanted, {"error": "access_denied"})
    account = int(form.get("account", "0"))
    approval = Approval(account, wanted["client_id"], wanted.get("scope", ""), wanted.get("nonce", ""))
    code = simulation.sign_ins.issue_code(approval, wanted["redirect_uri"], wanted.get("code_challenge", ""))
    return redirect_back(simulation, request, wanted, {"code": code})


def redirect_back(simulation: Simulation, request: Request, wanted: dict[str, str], answer: dict[str, str]) -> bytes:
    """Sends the browser back to the client, with the issuer (RFC 9207)."""
    fields = {**answer, "iss": find_issuer(simulation, request)}
    fields |= {"state": wanted["state"]} if "state" in wanted else {}
    uri = wanted["redirect_uri"]
    location = f"{uri}{'&' if '?' in uri else '?'}{urlencode(fields)}"
    return encode_response(303, b"", HTML, f"location: {location}\r\n")


def authorize_device(simulation: Simulation, request: Request) -> bytes:
    """RFC 8628 section 3.1."""
    form = read_form(request)
    if not form.get("client_id"):
        return encode_response(400, encode_json({"error": "invalid_client"}))
    device_code, device = simulation.sign_ins.begin_device(form["client_id"], form.get("scope", ""))
    page = f"{find_issuer(simulation, request)}/device"
    answer = {
        "device_code": device_code,
        "user_code": device.user_code,
        "verification_uri": page,
        "verification_uri_complete": f"{page}?user_code={device.user_code}",
        "expires_in": simulation.sign_ins.device_seconds,
        "interval": simulation.sign_ins.interval,
    }
    return encode_response(200, encode_json(answer))


def decide_device(simulation: Simulation, request: Request) -> bytes:
    """The page on which the owner types the code of a device."""
    if request.method != "POST":
        query = parse_qs(request.path.partition("?")[2])
        page = render_device(query.get("user_code", [""])[0], simulation.accounts.count)
        return encode_response(200, page, HTML)
    form = read_form(request)
    decision = "allow" if form.get("decision") == "allow" else "deny"
    if not simulation.sign_ins.decide_device(form.get("user_code", ""), decision, int(form.get("account", "0"))):
        return encode_response(400, render_page("Unknown code", "The code is wrong or has expired."), HTML)
    return encode_response(200, render_page("Done", "You may close this page."), HTML)


def redeem(simulation: Simulation, request: Request, fields: dict[str, str]) -> dict[str, Any]:
    """The token response to a code or a device code. Raises TokenRefused."""
    grants, client_id = simulation.sign_ins, fields.get("client_id", "")
    if fields["grant_type"] == DEVICE_GRANT:
        approval = grants.poll_device(fields.get("device_code", ""), client_id)
    else:
        verifier, redirect_uri = fields.get("code_verifier", ""), fields.get("redirect_uri", "")
        approval = grants.redeem_code(fields.get("code", ""), redirect_uri, verifier, client_id)
    grant = simulation.accounts.sign_in(approval.account)
    body = {"access_token": grant.access_token, "token_type": "Bearer", "expires_in": int(grant.expires_in)}
    if "offline_access" in approval.scope.split():
        body["refresh_token"] = grant.refresh_token or ""
    if "openid" in approval.scope.split():
        body["id_token"] = simulation.id_tokens.issue(find_issuer(simulation, request), approval)
    return body


def read_form(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode("latin-1")).items()}


ENDPOINTS: dict[str, Callable[[Simulation, Request], bytes]] = {
    "/.well-known/openid-configuration": show_metadata,
    "/.well-known/oauth-authorization-server": show_metadata,
    "/oauth/authorize": authorize,
    "/oauth/device": authorize_device,
    "/device": decide_device,
    "/oauth/jwks": show_keys,
    "/oauth/userinfo": show_user,
}
