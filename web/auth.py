"""Who is calling: checks the API key of a request; a key is looked up in Redis once a second at most."""

from shared.api_keys import ApiKey, ApiKeys, digest
from shared.errors import ApiError
from web.believed import Believed


class Authenticator:
    """Checks presented keys."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._keys: Believed[str, ApiKey | None] = Believed(api_keys.find)

    def caller(self, authorization: str) -> ApiKey:
        """The key behind an Authorization header (RFC 6750). Raises ApiError 401."""
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise refused("You didn't provide an API key: send it as `Authorization: Bearer sk-…`.")
        key = self._keys.get(digest(secret))
        if key is None or not key.enabled:
            raise refused("Incorrect API key provided.")
        return key


def refused(message: str) -> ApiError:
    """The answer to a wrong or missing key."""
    return ApiError(401, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})
