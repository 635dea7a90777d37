"""Calls a pool's token endpoint (RFC 6749 section 6) and its revocation endpoint (RFC 7009)."""

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import gevent
import requests
from requests.exceptions import InvalidHeader
from urllib3.exceptions import HTTPError

from shared.errors import TokenEndpointDown, TokenError
from shared.parsing import parse_json_object
from shared.settings.schema import PoolSettings
from workers.credentials.token_error_codes import find_error_codes
from workers.credentials.token_response import (
    INVALID_GRANT,
    TokenGrant,
    TokenResponse,
    parse_token_response,
    read_fields,
)

#: Seconds to wait for a connection to the token endpoint, and for each part of its response.
TIMEOUT_SECONDS = (10.0, 30.0)
#: Seconds that a whole token request may take: an endpoint that trickles must not hold up the others' refreshes.
TOTAL_TIMEOUT_SECONDS = 34.0
#: Bytes of a token response that are read.
MAX_RESPONSE_BYTES = 1024 * 1024
#: Without `Accept` GitHub sends a form.
HEADERS = {"accept": "application/json"}
#: Codes by which an endpoint refuses the client, maybe only its way of authentication; Keycloak sends the second one.
CLIENT_ERRORS = frozenset({"invalid_client", "unauthorized_client"})


class TokenEndpoint:
    """A pool's token endpoint; remembers in which way of authentication (FARM_TOKEN_AUTH) the client was accepted."""

    def __init__(self, pool: PoolSettings, session: requests.Session, find_url: Callable[[], str] = lambda: "") -> None:
        """`find_url` finds the URL of a pool without FARM_TOKEN_URL; it may raise TokenEndpointDown."""
        self._pool = pool
        self._find_url = find_url
        self._session = session
        self._ways = list_ways(pool)

    def refresh(self, refresh_token: str) -> TokenGrant:
        """Exchanges a refresh token for an access token. Raises InvalidGrant, TokenEndpointDown or TokenError."""
        arguments = build_token_request(self._pool, refresh_token)
        response = self._post(self._pool.token_url or self._find_url(), arguments)
        return parse_token_response(response, self._pool.fatal_token_errors)

    def request(self, fields: dict[str, str], url: str) -> TokenResponse:
        """Sends another request in which the client authenticates as in a refresh: of a sign-in. Raises TokenError."""
        return self._post(url, {"data": fields})

    def revoke(self, refresh_token: str) -> int:
        """Asks the revocation endpoint to revoke a refresh token, and returns the status. Raises TokenError."""
        arguments = {"data": {"token": refresh_token, "token_type_hint": "refresh_token"}}
        return self._post(self._pool.revocation_url, arguments).status

    def _post(self, url: str, arguments: dict[str, Any]) -> TokenResponse:
        """Sends the request in each way of authentication until one is accepted; a request may use only one."""
        too_slow = TokenEndpointDown(f"the token endpoint took longer than {TOTAL_TIMEOUT_SECONDS:.0f} s")
        with gevent.Timeout(TOTAL_TIMEOUT_SECONDS, too_slow):
            for way in list(self._ways):
                response, is_refused = self._post_once(url, authenticate(arguments, self._pool, way))
                if not is_refused:
                    # The next request begins with this one.
                    self._ways = [way, *(other for other in self._ways if other != way)]
                    break
        return response

    def _post_once(self, url: str, arguments: dict[str, Any]) -> tuple[TokenResponse, bool]:
        """The response, and whether it refuses the client."""
        headers = {**HEADERS, **own_headers(self._pool), **arguments.pop("headers", {})}
        try:
            with self._session.post(
                url, timeout=TIMEOUT_SECONDS, allow_redirects=False, stream=True, headers=headers, **arguments
            ) as response:
                body = read_body(response)
        except (UnicodeError, InvalidHeader) as error:
            raise TokenError(f"the refresh token can't be sent: {type(error).__name__}") from None
        except (requests.RequestException, HTTPError, OSError) as error:
            raise TokenEndpointDown(f"the token endpoint can't be reached: {type(error).__name__}") from None
        names = ("retry-after", "location", "www-authenticate")
        retry_after, location, challenge = (response.headers.get(name) for name in names)
        parsed = TokenResponse(response.status_code, body, retry_after, location or "")
        return parsed, is_client_refused(parsed, challenge or "", self._pool)


def list_ways(pool: PoolSettings) -> list[str]:
    """The ways in which the client may authenticate, the first one first.

    `plain` is Basic without the form encoding that RFC 6749 section 2.3.1 asks for: many endpoints don't decode it.
    """
    if pool.token_request == "bearer" or not (pool.client_id and pool.client_secret):  # noqa: S105
        return ["body"]
    is_same = all(quote_plus(text) == text for text in (pool.client_id, pool.client_secret))
    basic = ["basic"] if is_same else ["basic", "plain"]
    return {"basic": basic, "body": ["body"]}.get(pool.token_auth, ["body", *basic])


def is_client_refused(response: TokenResponse, challenge: str, pool: PoolSettings) -> bool:
    """Whether a response refuses the client, not its token; `challenge` is WWW-Authenticate (RFC 6749 section 5.2)."""
    codes = find_error_codes(read_fields(response.body))
    if response.status >= 500 or {INVALID_GRANT, *pool.fatal_token_errors}.intersection(codes):
        return False
    if CLIENT_ERRORS.intersection(codes):
        return True
    return response.status == 401 and (not codes or challenge.strip().lower().startswith("basic"))


def build_token_request(pool: PoolSettings, refresh_token: str) -> dict[str, Any]:
    """Arguments for requests.post, by the pool's FARM_TOKEN_REQUEST: `form`, `json` or `bearer`."""
    if pool.token_request == "bearer":  # noqa: S105
        return {"data": b"", "headers": {"authorization": f"Bearer {refresh_token}"}}
    fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    fields |= {"scope": pool.scope} if pool.scope else {}
    return {"json": fields} if pool.token_request == "json" else {"data": fields}  # noqa: S105


def authenticate(arguments: dict[str, Any], pool: PoolSettings, way: str) -> dict[str, Any]:
    """The arguments with client id and secret, in that way, as a copy."""
    if way == "body":
        name = "json" if "json" in arguments else "data"
        client = {"client_id": pool.client_id, "client_secret": pool.client_secret}
        fields = {key: value for key, value in client.items() if value}
        is_bearer = not isinstance(arguments[name], dict)
        return dict(arguments) if is_bearer else {**arguments, name: {**arguments[name], **fields}}
    encode = quote_plus if way == "basic" else str
    pair = f"{encode(pool.client_id)}:{encode(pool.client_secret)}"
    return {**arguments, "headers": {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}}


def own_headers(pool: PoolSettings) -> dict[str, str]:
    """The operator's headers: the name under which the farm calls the upstream is its name here too."""
    names = {name.lower(): value for name, value in pool.headers.items()}
    user_agent = {"user-agent": names["user-agent"]} if "user-agent" in names else {}
    return {**user_agent, **{name.lower(): value for name, value in pool.token_headers.items()}}


def read_body(response: requests.Response) -> bytes:
    """Reads the response, at most MAX_RESPONSE_BYTES of it; what is longer is no token response.

    A JSON object that is whole counts although its end is missing in HTTP (the last chunk, the close of a connection):
    its rotated refresh token would be lost. Raises OSError or HTTPError.
    """
    body = b""
    is_delimited = "content-length" in response.headers or "transfer-encoding" in response.headers
    try:
        while data := response.raw.read1(16_384, decode_content=True):
            body += data
            if len(body) > MAX_RESPONSE_BYTES or (not is_delimited and is_whole_json(body)):
                break
    except (HTTPError, OSError):
        if not is_whole_json(body):
            raise
    return body


def is_whole_json(body: bytes) -> bool:
    return body.rstrip().endswith(b"}") and bool(parse_json_object(body))
