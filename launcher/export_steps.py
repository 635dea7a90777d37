"""The steps of an export that change credentials, and their reversal when the export fails."""

import sys
import time
from collections.abc import Sequence

from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import FarmError
from shared.settings.schema import Settings

POLL_SECONDS = 0.2


def longest_request(settings: Settings) -> float:
    """The longest total timeout of all pools, in seconds."""
    return max(settings.with_pool_timeouts(pool).total_timeout for pool in settings.pools)


class ExportSteps:
    """A context in which credentials are suspended and marked as exported; an exception in it puts everything back."""

    def __init__(self, store: Credentials, pools: list[str]) -> None:
        self._store = store
        self._pools = pools
        self._records: Sequence[CredentialRecord] = []
        self._suspended: list[CredentialRecord] = []

    def __enter__(self) -> "ExportSteps":
        self._records = self._store.list(self._pools)
        return self

    def suspend_all(self, timeout: float) -> None:
        """Disables every credential and waits until no worker holds one, so that no token rotates any more.

        Raises FarmError after `timeout` seconds.
        """
        for record in self._records:
            self._suspended.append(record)
            self._store.suspend(record.pool, record.id, "moved to another farm")
        deadline, last_count = time.monotonic() + timeout, 0
        while count := sum(bool(record.owner) for record in self._store.list(self._pools)):
            if time.monotonic() > deadline:
                raise FarmError(
                    f"{count} credentials are still serving requests after {timeout:g} s: nothing was moved, and all "
                    "are back in service; try again later, or with a longer --wait"
                )
            if count != last_count and timeout > 1:
                print(f"farm: waiting for the requests of {count} credentials", file=sys.stderr, flush=True)
            last_count = count
            time.sleep(POLL_SECONDS)

    def record_export(self) -> None:
        """Marks all as exported; to be called before their tokens are read."""
        self._store.record_export(record.id for record in self._records)

    def warn_of_rotations(self) -> None:
        """Says how many tokens have rotated since `record_export`."""
        count = sum(record.export_outdated for record in self._store.list(self._pools))
        if count:
            print(
                f"farm: {count} credentials rotated while the export was being written: their exported tokens are "
                "stale; export again, or use `./farm export --move`",
                file=sys.stderr,
            )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        for record in self._suspended:
            self._store.resume(record.pool, record.id)
        self._store.withdraw_export(self._records)
