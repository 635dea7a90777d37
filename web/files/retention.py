"""Deletes files whose time is over, those of revoked keys, and bytes that belong to no file.

One front of the farm does it at a time, by a lease; each step can be repeated, or done twice at once, without harm.
"""

import logging
import secrets

import gevent
from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys
from shared.api_keys.store import ApiKeys
from shared.credentials.private import PrivateCredentials, is_caller
from shared.errors import NotFound
from shared.files.file_record import FILE_ID_PREFIX
from shared.files.file_store import Files
from shared.files.part_store import FileStoreDown, PartNotFound
from shared.files.store_health import probe
from shared.redis_connection.lease import NOT_HELD, build_lease

log = logging.getLogger("farm.files")
#: Seconds between two looks whether a store that has failed is back; how many of them there are between two rounds, and
#: between two looks for bytes without a file.
PROBE_SECONDS, PROBES_PER_ROUND, PROBES_PER_SWEEP = 10.0, 6, 360
#: Milliseconds after which another front takes over from one that was killed.
LEASE_MS = 150_000
#: Seconds after which parts that no record names are left over: the longest upload takes less.
ORPHAN_SECONDS = 86_400.0
#: Files deleted in one step.
FILES_AT_ONCE = 100
#: Part that says whose the store is: the files of another farm that uses it by mistake must not be swept.
OWNER = "farm/owner"


class FileRetention:
    """A front's part in it."""

    def __init__(self, redis: Redis, files: Files, front_id: str) -> None:
        self._redis = redis
        self._files = files
        self._front_id = front_id
        self._hold = build_lease(redis)
        self._api_keys = ApiKeys(redis)
        self._private_credentials = PrivateCredentials(redis)

    def run(self) -> None:
        """Never returns."""
        probes, is_first = 0, True
        while True:
            gevent.sleep(PROBE_SECONDS)
            try:
                probe(self._redis, self._files.store, is_first=is_first)
                is_first = False
                if self._hold(keys.FILES_LEASE, self._front_id, LEASE_MS) != NOT_HELD:
                    probes += 1
                    if probes % PROBES_PER_ROUND == 0:
                        self.delete_due(is_sweeping=probes % PROBES_PER_SWEEP == PROBES_PER_ROUND)
            except (RedisError, FileStoreDown) as error:
                log.warning("can't look after the files, will retry: %s", error, extra={"action": "file_store_failed"})

    def delete_due(self, *, is_sweeping: bool) -> None:
        """Raises RedisError, FileStoreDown."""
        self._delete_expired()
        for key_id in map(bytes.decode, self._redis.hkeys(keys.FILE_BYTES)):
            if self._is_gone(key_id):
                self._delete_all_of(key_id)
        if is_sweeping and self._owns_store():
            self._sweep()

    def _delete_expired(self) -> None:
        """Those that an unfinished batch reads have their turn in the first round after its end."""
        kept = 0
        while ids := self._redis.zrangebyscore(keys.EXPIRING_FILES, 0, clock.now(), kept, FILES_AT_ONCE):
            kept += sum(not self._files.delete_id(id_.decode(), unless_read=True) for id_ in ids)

    def _delete_all_of(self, key_id: str) -> None:
        """Also what its unfinished batches read: they are cancelled, and nobody can ask for their results."""
        while ids := self._redis.zrange(keys.files(key_id), 0, FILES_AT_ONCE - 1):
            for id_ in ids:
                self._files.delete_id(id_.decode(), key_id)

    def _is_gone(self, key_id: str) -> bool:
        """Whether the key was revoked, or was a caller's own refresh token that is forgotten."""
        if is_caller(key_id):
            return not self._private_credentials.has_caller(key_id)
        try:
            return bool(self._api_keys.get(key_id).revoked_at)
        except NotFound:
            return False

    def _owns_store(self) -> bool:
        """Whether the store is this farm's: it is marked as that of the first farm, and Redis, that used it."""
        self._redis.set(keys.FILE_STORE_ID, secrets.token_hex(8), nx=True)
        own = bytes(self._redis.get(keys.FILE_STORE_ID) or b"")
        try:
            owner = self._files.store.get(OWNER)
        except PartNotFound:
            self._files.store.put(OWNER, own)
            return True
        if owner != own:
            log.error(
                "the store of files belongs to another farm, or to this one before it lost its Redis: nothing is swept "
                "there until %s is deleted from it",
                OWNER,
                extra={"action": "file_store_foreign"},
            )
        return owner == own

    def _sweep(self) -> None:
        """Deletes parts of files that never were, and parts that were left when their file was deleted."""
        newest: dict[str, float] = {}
        for part in self._files.store.list(FILE_ID_PREFIX):
            file_id = part.name.partition("/")[0]
            newest[file_id] = max(newest.get(file_id, 0.0), part.modified_at)
        for file_id, modified_at in newest.items():
            if modified_at < clock.now() - ORPHAN_SECONDS and not self._files.is_known(file_id):
                self._files.delete_id(file_id)
                log.info("swept %s, which is no file", file_id, extra={"action": "file_parts_swept"})
        self._redis.zremrangebyscore(keys.RESERVED_FILES, 0, clock.now() - ORPHAN_SECONDS)
