"""The pools and credentials that a command names, and the audit log of what is done with them."""

from launcher.context import noted, open_store
from shared import private_credentials
from shared.credential_records import CredentialRecord
from shared.credentials import Credentials
from shared.errors import FarmError
from shared.settings import Settings


def pool_names(settings: Settings) -> list[str]:
    """Every pool's name."""
    return [pool.name for pool in settings.pools]


def chosen(settings: Settings, pool: str) -> str:
    """A pool by its name. Raises FarmError."""
    if pool not in pool_names(settings):
        raise FarmError(f"no pool {pool!r}; there is {', '.join(pool_names(settings))}")
    return pool


class Noted(Credentials):
    """The store, and the audit log beside it."""

    def note(self, action: str, credential_id: str) -> None:
        """A line in the audit log."""
        noted(self._redis, action, credential_id)

    def forget(self, one: CredentialRecord) -> None:
        """Removes it, be it private or not."""
        private_credentials.remove(self._redis, one.pool, one.id)


def named(credential_ids: tuple[str, ...]) -> tuple[Noted, list[CredentialRecord]]:
    """The store, and the credentials of these ids. Raises NotFound before anything is changed."""
    settings, redis = open_store()
    store, pools = Noted(redis), private_credentials.all_pools(redis, pool_names(settings))
    return store, [store.find(credential_id, pools) for credential_id in credential_ids]
