"""Looks up the pools and credentials that a command names."""

from collections.abc import Iterable

from redis import Redis

from shared.credentials import private
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import FarmError
from shared.settings.schema import Settings


def select_pool(settings: Settings, name: str) -> str:
    """Returns the name of a configured pool. Raises FarmError."""
    if name not in settings.pool_names:
        raise FarmError(f"no pool {name!r}; the pools are {', '.join(settings.pool_names)}")
    return name


def select_credentials(settings: Settings, redis: Redis, credential_ids: Iterable[str]) -> tuple[CredentialRecord, ...]:
    """Returns credentials, private ones included, by their ids. Raises NotFound before anything is changed."""
    pools = private.list_all_pools(redis, settings.pool_names)
    return Credentials(redis).get_all(credential_ids, pools)
