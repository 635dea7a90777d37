"""Authenticates API keys; each key is read from Redis at most once a second."""

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

    def authenticate(self, authorization: str, address: str, pool: str = "") -> ApiKey:
        """Returns the key in an Authorization header (RFC 6750) presented from `address`. Raises ApiError.

        `pool` is the pool that the caller names for a refresh token, '' for none.
        """
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise unauthorized_error("You didn't provide an API key: send it as `Authorization: Bearer sk-…`.")
        key = self._keys.get(hash_secret(secret))
        if key is None and self._private_callers.may_be_token(secret):
            return self._private_callers.authenticate(secret, address, pool)
        if key is None or not key.enabled:
            raise unauthorized_error("Incorrect API key provided.")
        if key.is_expired:
            raise unauthorized_error("This API key has expired.", "api_key_expired")
        if not key.allows_address(address):
            message = f"This API key may not be used from {address}."
            raise ApiError(403, "ip_not_authorized", message)
        return key


def unauthorized_error(message: str, code: str = "invalid_api_key") -> ApiError:
    return ApiError(401, code, message, headers={"www-authenticate": "Bearer"})
