"""Who is calling: checks the API key of a request; a key is looked up in Redis once a second at most."""

import time

from shared.api_keys import ApiKey, ApiKeys, digest
from shared.errors import ApiError

#: Seconds that an answer of the store is believed.
BELIEVED = 1.0
#: Keys remembered at most, known or not.
REMEMBERED = 10_000


class Authenticator:
    """Checks presented keys."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys
        self._seen: dict[str, tuple[float, ApiKey | None]] = {}

    def caller(self, authorization: str) -> ApiKey:
        """The key behind an Authorization header (RFC 6750). Raises ApiError 401."""
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise refused("You didn't provide an API key: send it as `Authorization: Bearer sk-…`.")
        key = self._look_up(secret)
        if key is None or not key.enabled:
            raise refused("Incorrect API key provided.")
        return key

    def _look_up(self, secret: str) -> ApiKey | None:
        name = digest(secret)
        at, key = self._seen.get(name, (0.0, None))
        if time.monotonic() - at < BELIEVED:
            return key
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        key = self._api_keys.find_secret(secret)
        self._seen[name] = (time.monotonic(), key)
        return key


def refused(message: str) -> ApiError:
    """The answer to a wrong or missing key."""
    return ApiError(401, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})
