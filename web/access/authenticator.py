"""Authenticates API keys; each key is read from Redis at most once a second."""

from collections.abc import Sequence

from shared.api_keys.api_key import ApiKey
from shared.api_keys.store import ApiKeys, hash_secret
from shared.errors import ApiError
from web.access.private_callers import PrivateCallers
from web.single_flight_cache import SingleFlightCache


class Authenticator:
    """Checks presented API keys."""

    def __init__(self, api_keys: ApiKeys, private_callers: PrivateCallers) -> None:
        self._keys: SingleFlightCache[str, ApiKey | None] = SingleFlightCache(api_keys.find)
        self._private_callers = private_callers

    def authenticate(self, secrets: Sequence[str], address: str, pool: str = "") -> ApiKey:
        """Returns the first known key among the secrets presented from `address`. Raises ApiError.

        Where there is none, one of them may be a refresh token; `pool` is the pool that the caller names for it, '' for
        none.
        """
        if not secrets:
            raise unauthorized_error("You didn't provide an API key: send it as `Authorization: Bearer sk-…`.")
        keys = (self._keys.get(hash_secret(secret)) for secret in secrets)
        key = next((key for key in keys if key), None)
        if key is None:
            if token := next((secret for secret in secrets if self._private_callers.may_be_token(secret)), ""):
                return self._private_callers.authenticate(token, address, pool)
            raise unauthorized_error("Incorrect API key provided.")
        check_key(key, address)
        return key


def check_key(key: ApiKey, address: str) -> None:
    """Raises ApiError if the key may not be used, or not from this address."""
    if not key.enabled:
        raise unauthorized_error("Incorrect API key provided.")
    if key.is_expired:
        raise unauthorized_error("This API key has expired.", "api_key_expired")
    if not key.allows_address(address):
        message = f"This API key may not be used from {address}."
        raise ApiError(403, "ip_not_authorized", message)


def unauthorized_error(message: str, code: str = "invalid_api_key") -> ApiError:
    return ApiError(401, code, message, headers={"www-authenticate": "Bearer"})
