"""Calls a pool's token endpoint (RFC 6749 section 3.2) and its revocation endpoint (RFC 7009)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
import requests
from requests.exceptions import InvalidHeader
from urllib3.exceptions import HTTPError, ProtocolError

from shared.errors import TokenEndpointDown, TokenError
from shared.parsing import parse_json_object
from shared.settings.kind_checks import read_token_auth_key
from shared.settings.schema import PoolSettings
from workers.credentials.token_endpoint.token_error_codes import find_error_codes
from workers.credentials.token_endpoint.token_request import authenticate, build_token_request, find_client, list_ways
from workers.credentials.token_endpoint.token_response import (
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
#: Codes by which an endpoint refuses a credential that is a client itself.
REFUSED_CLIENT_CODES = (*CLIENT_ERRORS, "http_401")


class TokenEndpoint:
    """A pool's token endpoint; remembers in which way of authentication (FARM_TOKEN_AUTH) the client was accepted."""

    def __init__(self, pool: PoolSettings, session: requests.Session, find_url: Callable[[], str] = lambda: "") -> None:
        """`find_url` finds the URL of a pool without FARM_TOKEN_URL; it may raise TokenEndpointDown."""
        self._pool = replace(pool, token_auth_key=read_token_auth_key(pool))
        self._find_url = find_url
        self._session = session
        #: The way of authentication that was accepted last; '' before the first time.
        self._accepted_way = ""

    def refresh(self, secret: str) -> TokenGrant:
        """Exchanges a credential's secret for an access token. Raises InvalidGrant, TokenEndpointDown or TokenError."""
        pool = self._resolve()
        response = self._post(pool.token_url, build_token_request(pool, secret), secret)
        kind = self._pool.credential_kind
        # The client is the credential then, so its refusal is the credential's.
        own_codes = REFUSED_CLIENT_CODES if kind == "client_credentials" else ()
        grant = parse_token_response(response, (*self._pool.fatal_token_errors, *own_codes))
        return grant if kind == "refresh_token" else drop_refresh_token(grant)

    def _resolve(self) -> PoolSettings:
        """The pool's settings with the URL of its token endpoint, for assertions. Raises TokenEndpointDown."""
        return self._pool if self._pool.token_url else replace(self._pool, token_url=self._find_url())

    def request(self, fields: dict[str, str], url: str) -> TokenResponse:
        """Sends another request in which the client authenticates as in a refresh: of a sign-in. Raises TokenError."""
        return self._post(url, {"data": fields}, "")

    def revoke(self, refresh_token: str) -> int:
        """Asks the revocation endpoint to revoke a refresh token, and returns the status. Raises TokenError."""
        arguments = {"data": {"token": refresh_token, "token_type_hint": "refresh_token"}}
        return self._post(self._pool.revocation_url, arguments, refresh_token).status

    def _post(self, url: str, arguments: dict[str, Any], secret: str) -> TokenResponse:
        """Sends the request in each way of authentication until one is accepted; a request may use only one."""
        too_slow = TokenEndpointDown(f"the token endpoint took longer than {TOTAL_TIMEOUT_SECONDS:.0f} s")
        client = find_client(self._pool, secret)
        ways = sorted(list_ways(self._pool, client), key=lambda way: way != self._accepted_way)
        too_slow.is_outcome_unknown = True
        with gevent.Timeout(TOTAL_TIMEOUT_SECONDS, too_slow):
            for way in ways:
                pool = self._resolve() if way == "jwt" else self._pool
                response, is_refused = self._post_once(url, authenticate(arguments, pool, client, way))
                if not is_refused:
                    self._accepted_way = way
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
            raise TokenError(f"the credential can't be sent: {type(error).__name__}") from None
        except (requests.RequestException, HTTPError, OSError) as error:
            down = TokenEndpointDown(f"the token endpoint can't be reached: {type(error).__name__}")
            down.is_outcome_unknown = was_sent(error)
            raise down from None
        names = ("retry-after", "location", "www-authenticate")
        retry_after, location, challenge = (response.headers.get(name) for name in names)
        parsed = TokenResponse(response.status_code, body, retry_after, location or "")
        return parsed, is_client_refused(parsed, challenge or "", self._pool)


def drop_refresh_token(grant: TokenGrant) -> TokenGrant:
    """A grant without its refresh token, which must not replace the secret of a credential of another kind.

    Endpoints should not issue one then (RFC 6749 section 4.4.3), and some do. Raises TokenEndpointDown when nothing
    else in it can be used.
    """
    if grant.unusable:
        raise TokenEndpointDown(grant.unusable, "no_access_token")
    return replace(grant, refresh_token=None)


def is_client_refused(response: TokenResponse, challenge: str, pool: PoolSettings) -> bool:
    """Whether a response refuses the client, not its token; `challenge` is WWW-Authenticate (RFC 6749 section 5.2)."""
    codes = find_error_codes(read_fields(response.body))
    if response.status >= 500 or {INVALID_GRANT, *pool.fatal_token_errors}.intersection(codes):
        return False
    if CLIENT_ERRORS.intersection(codes):
        return True
    return response.status == 401 and (not codes or challenge.strip().lower().startswith("basic"))


def own_headers(pool: PoolSettings) -> dict[str, str]:
    """The operator's headers: the name under which the farm calls the upstream is its name here too."""
    names = {name.lower(): value for name, value in pool.headers.items()}
    user_agent = {"user-agent": names["user-agent"]} if "user-agent" in names else {}
    return {**user_agent, **{name.lower(): value for name, value in pool.token_headers.items()}}


def was_sent(error: Exception) -> bool:
    """Whether the request may have reached the endpoint, although its response did not come or broke off."""
    if isinstance(error, requests.ConnectionError):
        return bool(error.args) and isinstance(error.args[0], ProtocolError)
    return isinstance(error, requests.ReadTimeout | HTTPError | ConnectionError | TimeoutError)


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
