"""Reads token responses (RFC 6749 section 5), also in the forms in which endpoints deviate from it. No I/O.

A response is judged by its status and its error codes, never by a text for people.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from shared.errors import InvalidGrant, TokenEndpointDown, TokenError
from shared.parsing import parse_json_object, parse_retry_after
from shared.settings.schema import DEFAULT_FATAL_TOKEN_ERRORS
from workers.credentials.token_endpoint.token_error_codes import find_error_codes, has_error
from workers.credentials.token_endpoint.token_lifetime import find_lifetime

#: The code of RFC 6749 section 5.2 for a refresh token that is invalid. The pool's settings name vendors' codes.
INVALID_GRANT = "invalid_grant"
#: Codes that mean, whatever the status, that the endpoint fails for now (RFC 6749 section 4.1.2.1, RFC 8628).
TRANSIENT_CODES = frozenset(
    {
        *("temporarily_unavailable", "server_error", "slow_down", "internal_error", "internal_server_error"),
        *("service_unavailable", "rate_limited", "rate_limit_exceeded", "too_many_requests", "throttled", "timeout"),
    }
)
#: Statuses below 500 that mean the same.
TRANSIENT_STATUSES = (408, 425, 429)
#: Members in which some endpoints wrap the response.
WRAPPERS = ("data", "result", "body")
#: Types of a token that is sent as `Authorization: Bearer`, by their letters: there are `jwt-bearer` and `BearerToken`.
BEARER_TYPES = ("bearer", "bearertoken", "jwtbearer")
#: Members of a form that is a token response.
FORM_NAMES = frozenset({"accesstoken", "error", "errorcode", "errcode"})
MAX_FORM_FIELDS = 200
#: Characters of a redirect's target that are shown.
MAX_LOCATION_LENGTH = 200


@dataclass(frozen=True, repr=False)
class TokenGrant:
    """A successful token response. It has no repr, because it consists of secrets."""

    #: '' when the response has none that can be used.
    access_token: str
    #: Seconds from now.
    expires_in: float
    #: The rotated refresh token; None when the old one stays valid.
    refresh_token: str | None
    #: Why the access token can't be used, although a rotated refresh token must be stored; '' when it can.
    unusable: str = ""
    #: Says who has signed in (OpenID Connect Core section 2); '' for none.
    id_token: str = ""


@dataclass(frozen=True, repr=False)
class TokenResponse:
    """The parts of an HTTP response that matter. It has no repr, because it contains secrets."""

    status: int
    body: bytes
    retry_after: str | None = None
    #: Target of a redirect.
    location: str = ""


def parse_token_response(
    response: TokenResponse, fatal_codes: Collection[str] = DEFAULT_FATAL_TOKEN_ERRORS
) -> TokenGrant:
    """Parses a token response. `fatal_codes`, besides `invalid_grant`, mean that the refresh token is invalid.

    Raises InvalidGrant when the refresh token is refused, TokenEndpointDown when the endpoint fails, TokenError when it
    refuses the request for another reason (a wrong client id, say).
    """
    try:
        return read_grant(response, fatal_codes)
    except TokenError as error:
        error.status = response.status
        raise


def read_grant(response: TokenResponse, fatal_codes: Collection[str]) -> TokenGrant:
    """The grant in a response; raises what `parse_token_response` does, without the status."""
    fields = read_fields(response.body)
    status = response.status
    if status >= 500 or status in TRANSIENT_STATUSES:
        raise TokenEndpointDown(f"the token endpoint returned {status}", "", parse_retry_after(response.retry_after))
    if 300 <= status < 400:
        raise TokenEndpointDown(describe_redirect(response), f"redirect_{status}")
    if status >= 400 or has_error(fields):
        codes = find_error_codes(fields) or [f"http_{status}"]
        raise build_refusal(response, codes, {INVALID_GRANT, *fatal_codes})
    return build_grant(fields)


def build_refusal(response: TokenResponse, codes: list[str], fatal_codes: Collection[str]) -> TokenError:
    """The error that a refusal stands for. A code that is fatal decides, in whatever member it is."""
    fatal = next((code for code in codes if code in fatal_codes), "")
    code = fatal or next((code for code in codes if not code.isdecimal()), codes[0])
    message = f"the token endpoint returned {response.status} {code}"
    if fatal:
        return InvalidGrant(message, fatal)
    if code in TRANSIENT_CODES:
        return TokenEndpointDown(message, "", parse_retry_after(response.retry_after))
    return TokenError(message, code)


def build_grant(fields: dict[str, Any]) -> TokenGrant:
    """The grant in a response without an error. Raises TokenEndpointDown when nothing of it can be used."""
    rotated = fields.get("refreshtoken")
    refresh_token = (rotated.strip() or None) if isinstance(rotated, str) else None
    access_token = clean_access_token(fields.get("accesstoken"))
    code, unusable = find_unusable(access_token, fields.get("tokentype"))
    if not unusable:
        id_token = fields.get("idtoken")
        id_token = id_token.strip() if isinstance(id_token, str) else ""
        return TokenGrant(access_token, find_lifetime(fields, access_token), refresh_token, id_token=id_token)
    if refresh_token:
        return TokenGrant("", 0.0, refresh_token, unusable)
    raise TokenEndpointDown(unusable, code)


def find_unusable(access_token: str, token_type: Any) -> tuple[str, str]:
    """Why a token can't be used, as a code and a sentence; ('', '') when it can.

    A type that is not understood must not be used (RFC 6749 section 7.1); endpoints that leave it out mean Bearer.
    """
    if not access_token:
        return "no_access_token", "the token endpoint returned no access token that can be used"
    letters = "".join(filter(str.isalpha, str(token_type or "Bearer"))).lower()
    if letters not in BEARER_TYPES:
        reason = f"the token endpoint issued a token of type {str(token_type)[:40]!r}, and the farm can use only Bearer"
        return "unknown_token_type", reason
    return "", ""


def clean_access_token(value: Any) -> str:
    """The token without white space around it and without a scheme; '' when no header can hold it.

    That is visible ASCII: tokens are seldom limited to the characters of RFC 6750 section 2.1.
    """
    if not isinstance(value, str):
        return ""
    scheme, _, rest = value.strip().partition(" ")
    token = rest.strip() if scheme.lower() == "bearer" else value.strip()
    return token if token.isascii() and token.isprintable() and " " not in token else ""


def read_fields(body: bytes) -> dict[str, Any]:
    """The members of a response, by their names in lower case without `_` and `-`; {} when there are none.

    A JSON object or, as GitHub sends it, a form, whatever the Content-Type says.
    """
    fields = normalise_names(parse_json_object(body)) or parse_form(body)
    if "accesstoken" in fields:
        return fields
    wrapped = [normalise_names(inner) for name in WRAPPERS if isinstance(inner := fields.get(name), dict)]
    for inner in wrapped:
        if "accesstoken" in inner or (has_error(inner) and not has_error(fields)):
            return {**fields, **inner}
    return fields


def parse_form(body: bytes) -> dict[str, Any]:
    """The members of a form-encoded response; {} when it is none."""
    try:
        pairs = parse_qsl(body.decode().strip(), max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        return {}
    fields = normalise_names(dict(reversed(pairs)))
    return fields if fields.keys() & FORM_NAMES else {}


def normalise_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what is null, so that it hides no other spelling. The first spelling counts."""
    normalised: dict[str, Any] = {}
    for name, value in fields.items():
        if value is not None:
            normalised.setdefault(name.replace("_", "").replace("-", "").lower(), value)
    return normalised


def describe_redirect(response: TokenResponse) -> str:
    """Names the setting, and the target without its query, which may hold a secret."""
    target = response.location
    try:
        parts = urlsplit(target)
        target = f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path
    except ValueError:
        target = ""
    place = f" to {target[:MAX_LOCATION_LENGTH]}" if target.isprintable() and target.isascii() and target else ""
    return f"the token endpoint redirects ({response.status}){place}: set FARM_TOKEN_URL to the final address"
