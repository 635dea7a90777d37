"""The pools and credentials that a command names, and the audit log of what is done with them."""

from launcher.store import open_store, record_change
from shared.credentials import private
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import FarmError
from shared.protocol.credential_operations import CredentialOperations
from shared.settings.schema import Settings


def select_pool(settings: Settings, pool: str) -> str:
    """A pool by its name. Raises FarmError."""
    if pool not in settings.pool_names:
        raise FarmError(f"no pool {pool!r}; there is {', '.join(settings.pool_names)}")
    return pool


class Noted(Credentials):
    """The store, with the audit log and the workers beside it."""

    def note(self, action: str, credential_id: str) -> None:
        """A line in the audit log."""
        record_change(self._redis, action, credential_id)

    def errands(self) -> CredentialOperations:
        """Asks workers to do something with them."""
        return CredentialOperations(self._redis)

    def forget(self, one: CredentialRecord) -> None:
        """Removes it, be it private or not."""
        private.remove_credential(self._redis, one.pool, one.id)


def named(credential_ids: tuple[str, ...]) -> tuple[Noted, tuple[CredentialRecord, ...]]:
    """The store, and the credentials of these ids. Raises NotFound before anything is changed."""
    settings, redis = open_store()
    store, pools = Noted(redis), private.list_all_pools(redis, settings.pool_names)
    return store, store.get_all(credential_ids, pools)
