"""Exchanges refresh tokens for access tokens (RFC 6749 sections 5 and 6)."""

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

import gevent
import requests
from requests.exceptions import InvalidHeader

from shared.errors import InvalidGrant, TokenEndpointDown, TokenError
from shared.parsing import parse_json_object, parse_retry_after
from shared.settings.schema import PoolSettings

#: Lifetime in seconds of an access token whose response has no `expires_in`, which is only RECOMMENDED.
DEFAULT_LIFETIME_SECONDS = 3600.0
#: Lifetime in seconds that stands for 0 and less: the token is used, because endpoints that never let it expire say 0
#: too, and renewed soon. And the longest one that is believed.
SHORT_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS = 60.0, 86_400.0
#: Seconds to wait for a connection to the token endpoint, and for each part of its response.
TIMEOUT_SECONDS = (10.0, 30.0)
#: Seconds that a whole token request may take: an endpoint that trickles must not hold up the others' refreshes.
TOTAL_TIMEOUT_SECONDS = 34.0
#: Bytes of a token response that are read.
MAX_RESPONSE_BYTES = 1024 * 1024
#: Error codes that mean the refresh token itself is invalid (RFC 6749 section 5.2).
FATAL_ERRORS = ("invalid_grant",)


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


def build_token_request(pool: PoolSettings, refresh_token: str) -> dict[str, Any]:
    """Arguments for requests.post, by the pool's FARM_TOKEN_REQUEST: `form`, `json` or `bearer`."""
    if pool.token_request == "bearer":  # noqa: S105
        return {"data": b"", "headers": {"authorization": f"Bearer {refresh_token}"}}
    fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    optional = {"client_id": pool.client_id, "client_secret": pool.client_secret, "scope": pool.scope}
    fields |= {name: value for name, value in optional.items() if value}
    return {"json": fields} if pool.token_request == "json" else {"data": fields}  # noqa: S105


def build_revocation_request(pool: PoolSettings, refresh_token: str) -> dict[str, Any]:
    """Arguments for requests.post that revoke a refresh token (RFC 7009 section 2.1)."""
    fields = {"token": refresh_token, "token_type_hint": "refresh_token"}
    optional = {"client_id": pool.client_id, "client_secret": pool.client_secret}
    fields |= {name: value for name, value in optional.items() if value}
    return {"data": fields}


def parse_token_response(status: int, body: bytes, retry_after: str | None = None) -> TokenGrant:
    """Parses a token response, by its status and `error` code, never by a text.

    Raises InvalidGrant when the refresh token is refused, TokenEndpointDown when the endpoint fails, TokenError when it
    refuses the request for another reason (a wrong client id, say).
    """
    payload = parse_json_object(body)
    if status == 429 or status >= 500:
        raise TokenEndpointDown(f"the token endpoint returned {status}", parse_retry_after(retry_after))
    if status >= 400:
        code = payload.get("error")
        if code in FATAL_ERRORS:
            raise InvalidGrant(f"the token endpoint returned {status} {code}")
        raise TokenError(f"the token endpoint returned {status} {code if isinstance(code, str) else ''}".strip())
    rotated = payload.get("refresh_token")
    refresh_token = rotated if isinstance(rotated, str) and rotated else None
    unusable = find_unusable(status, payload)
    if not unusable:
        return TokenGrant(payload["access_token"], parse_lifetime(payload.get("expires_in")), refresh_token)
    if status < 300 and refresh_token:
        return TokenGrant("", 0.0, refresh_token, unusable)
    raise TokenEndpointDown(unusable)


def find_unusable(status: int, payload: dict[str, Any]) -> str:
    """Why a token response gives no access token that can be used, '' when it does.

    A type that is not understood must not be used (RFC 6749 section 7.1); endpoints that leave it out mean Bearer.
    """
    access_token = payload.get("access_token")
    if status >= 300 or not is_access_token(access_token):
        return f"the token endpoint returned {status} without a usable access token"
    token_type = payload.get("token_type") or "Bearer"
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        return f"the token endpoint issued a token of type {str(token_type)[:40]!r}, and the farm can use only Bearer"
    return ""


def is_access_token(value: object) -> TypeGuard[str]:
    """Whether it can be sent in a header: printable ASCII (RFC 6749 appendix A.12)."""
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


def parse_lifetime(expires_in: Any) -> float:
    """Lifetime of an access token in seconds; some endpoints send it as a string."""
    try:
        seconds = DEFAULT_LIFETIME_SECONDS if isinstance(expires_in, bool) else float(expires_in)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFETIME_SECONDS
    if math.isnan(seconds):
        return DEFAULT_LIFETIME_SECONDS
    return min(seconds, MAX_LIFETIME_SECONDS) if seconds > 0 else SHORT_LIFETIME_SECONDS


def refresh(session: requests.Session, pool: PoolSettings, refresh_token: str) -> TokenGrant:
    """Exchanges a refresh token for an access token. Raises InvalidGrant, TokenEndpointDown or TokenError."""
    too_slow = TokenEndpointDown(f"the token endpoint took longer than {TOTAL_TIMEOUT_SECONDS:.0f} s")
    try:
        with (
            gevent.Timeout(TOTAL_TIMEOUT_SECONDS, too_slow),
            session.post(
                pool.token_url,
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,
                **build_token_request(pool, refresh_token),
            ) as response,
        ):
            body = read_body(response)
    except (UnicodeError, InvalidHeader) as error:
        raise TokenError(f"the refresh token can't be sent: {type(error).__name__}") from None
    except (requests.RequestException, OSError) as error:
        raise TokenEndpointDown(f"the token endpoint can't be reached: {type(error).__name__}") from None
    return parse_token_response(response.status_code, body, response.headers.get("retry-after"))


def read_body(response: requests.Response) -> bytes:
    """Reads the response, at most MAX_RESPONSE_BYTES of it; what is longer is no token response."""
    body = b""
    for data in response.iter_content(16_384):
        body += data
        if len(body) > MAX_RESPONSE_BYTES:
            break
    return body
