"""Talks to a pool's authorization server: metadata, keys, userinfo, and the requests of a sign-in."""

import time

import gevent
import requests
from gevent.lock import BoundedSemaphore
from urllib3.exceptions import HTTPError

from shared.errors import TokenEndpointDown
from shared.parsing import parse_json_object
from shared.settings.schema import PoolSettings
from workers.credentials.token_endpoint.client import (
    HEADERS,
    TIMEOUT_SECONDS,
    TOTAL_TIMEOUT_SECONDS,
    TokenEndpoint,
    own_headers,
    read_body,
)
from workers.credentials.token_endpoint.token_response import TokenResponse
from workers.sign_in.errors import SignInFailed
from workers.sign_in.identity import Identity, find_identity
from workers.sign_in.metadata import Endpoints, choose_endpoints, list_metadata_urls, read_metadata

#: Seconds for which metadata is believed, and a failure to get it.
METADATA_SECONDS, FAILURE_SECONDS = 3600.0, 10.0
#: Seconds that an account's first refresh may wait for the userinfo endpoint.
USERINFO_SECONDS = 10.0


class ProviderDown(OSError):
    """Raised when a document can't be fetched; the message names the URL, without its query."""


class Provider:
    """The authorization server of one pool."""

    def __init__(self, pool: PoolSettings, endpoint: TokenEndpoint, session: requests.Session) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._session = session
        self._lock = BoundedSemaphore(1)
        self._found = Endpoints()
        #: Until when `_found`, or the failure to find it, is believed, by the monotonic clock.
        self._fresh_until = 0.0
        self._failure = ""

    def find_endpoints(self) -> Endpoints:
        """Raises SignInFailed when the issuer's metadata can't be had, and is needed."""
        if not self._pool.issuer:
            return choose_endpoints(self._pool, Endpoints())
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._discover()
        if self._failure:
            raise SignInFailed("discovery_failed", self._failure)
        return choose_endpoints(self._pool, self._found)

    def find_token_url(self) -> str:
        """The token endpoint by the issuer's metadata. Raises TokenEndpointDown."""
        try:
            token_url = self.find_endpoints().token_url
        except SignInFailed as error:
            raise TokenEndpointDown(str(error), error.code) from None
        if not token_url:
            raise TokenEndpointDown("the issuer's metadata has no token_endpoint: set FARM_TOKEN_URL", "no_token_url")
        return token_url

    def _discover(self) -> None:
        failures = []
        for url in list_metadata_urls(self._pool.issuer):
            try:
                self._found, self._failure = read_metadata(self.fetch_json(url), self._pool.issuer), ""
                self._fresh_until = time.monotonic() + METADATA_SECONDS
                return
            except (ProviderDown, SignInFailed) as error:
                failures.append(str(error))
        self._failure, self._fresh_until = failures[0], time.monotonic() + FAILURE_SECONDS

    def fetch_json(self, url: str, access_token: str = "", timeout: float = TOTAL_TIMEOUT_SECONDS) -> dict[str, object]:
        """A JSON object from a URL. Raises ProviderDown."""
        place = url.partition("?")[0]
        authorization = {"authorization": f"Bearer {access_token}"} if access_token else {}
        headers = {**HEADERS, **own_headers(self._pool), **authorization}
        with gevent.Timeout(timeout, ProviderDown(f"{place} took longer than {timeout:.0f} s")):
            try:
                with self._session.get(
                    url, timeout=TIMEOUT_SECONDS, allow_redirects=False, stream=True, headers=headers
                ) as response:
                    status, body = response.status_code, read_body(response)
            except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
                raise error if isinstance(error, ProviderDown) else self._unreachable(place, error) from None
        fields = parse_json_object(body) if status == 200 else {}
        if not fields:
            raise ProviderDown(f"{place} returned {status}" + (" without a JSON object" if status == 200 else ""))
        return fields

    def _unreachable(self, place: str, error: Exception) -> ProviderDown:
        return ProviderDown(f"{place} can't be reached: {type(error).__name__}")

    def fetch_identity(self, access_token: str) -> Identity | None:
        """Whose account it is, by the userinfo endpoint; None when there is none. Raises OSError."""
        try:
            endpoints = self.find_endpoints()
        except SignInFailed as error:
            raise ProviderDown(str(error)) from None
        if not endpoints.userinfo_url:
            return None
        claims = self.fetch_json(endpoints.userinfo_url, access_token, USERINFO_SECONDS)
        return find_identity(claims, endpoints.issuer)

    def fetch_keys(self, endpoints: Endpoints) -> dict[str, object]:
        """The issuer's public keys (RFC 7517). Raises SignInFailed."""
        if not endpoints.keys_url:
            raise SignInFailed("discovery_failed", "the issuer's metadata has no jwks_uri")
        try:
            return self.fetch_json(endpoints.keys_url)
        except ProviderDown as error:
            raise SignInFailed("discovery_failed", str(error)) from None

    def request(self, fields: dict[str, str], url: str) -> TokenResponse:
        """A request of the client, authenticated as FARM_TOKEN_AUTH says. Raises TokenEndpointDown."""
        return self._endpoint.request(fields, url)
