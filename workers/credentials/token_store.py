"""Stores the tokens of credentials, sealed, in Redis; a rotated one is on disk before it is used (I4)."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import keys
from shared.credentials.sealing import fingerprint
from shared.credentials.unsealing import Unsealer
from shared.errors import ForeignCredential, LeaseLost, TokenError
from shared.redis_connection.client import register_script
from workers.credentials.leases import Lease
from workers.credentials.token_endpoint import TokenGrant

log = logging.getLogger("farm.tokens")
#: Milliseconds that Redis may take to write a rotated token to disk.
FSYNC_TIMEOUT_MS = 3000
#: Result of store_grant.lua: stored, but an exported copy of the refresh token has become useless.
EXPORT_OUTDATED = 2


class TokenStore:
    """Reads and writes tokens. Only workers have one, because only they can unseal."""

    def __init__(
        self, redis: Redis, unsealer: Unsealer, find_token_origin: Callable[[str], str] = lambda _: ""
    ) -> None:
        """`find_token_origin(pool)` returns the origin of the pool's token endpoint, '' for any."""
        self._redis = redis
        self._unsealer = unsealer
        self._find_token_origin = find_token_origin
        self._store_script = register_script(redis, Path(__file__).with_name("store_grant.lua"))
        self._supports_waitaof: bool | None = None

    def load(self, credential_id: str) -> tuple[str, str, float]:
        """The refresh token, the access token ('' for none) and its expiry in seconds since the epoch.

        Raises TokenError when the credential is gone, ForeignCredential when it belongs to another token endpoint.
        """
        sealed, access, expires, pool, origin = self._redis.hmget(
            keys.credential(credential_id), ("sealed", "access", "access_expires", "pool", "token_origin")
        )
        if not sealed:
            raise TokenError("the credential is gone")
        pool_origin = self._find_token_origin(pool.decode() if pool else "")
        if pool_origin and pool_origin != (origin or b"").decode():
            raise ForeignCredential("the credential belongs to another token endpoint: `./farm credentials adopt`")
        access_token = self._unsealer.unseal(access, credential_id) if access else ""
        return self._unsealer.unseal(sealed, credential_id), access_token, float(expires or 0)

    def load_previous(self, credential_id: str) -> str:
        """The refresh token that the current one replaced; '' for none."""
        sealed = self._redis.hget(keys.credential(credential_id), "previous")
        return self._unsealer.unseal(sealed, credential_id) if sealed else ""

    def store(self, lease: Lease, replaced_token: str, grant: TokenGrant) -> None:
        """Stores a grant in place of the refresh token that was exchanged for it; returns once it is on disk.

        Raises LeaseLost when another process holds the credential by now.
        """
        seal = self._unsealer.sealer.seal
        rotated = grant.refresh_token or ""
        leading_keys = (keys.credential(lease.credential_id), lease.key)
        args = [
            lease.value,
            fingerprint(replaced_token),
            seal(grant.access_token, lease.credential_id),
            time.time() + grant.expires_in,
            time.time(),
            fingerprint(rotated) if rotated else "",
            seal(rotated, lease.credential_id) if rotated else "",
            lease.credential_id,
        ]
        with self._redis.pipeline(transaction=False) as pipe:
            self._store_script(
                keys=[*leading_keys, keys.fingerprints(lease.pool), keys.credentials(lease.pool)],
                args=args,
                client=pipe,
            )
            if rotated and self._can_wait_for_fsync():
                pipe.execute_command("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS)
            stored, *fsync_replies = pipe.execute(raise_on_error=False)
        if isinstance(stored, Exception):
            raise stored
        self._log_fsync(fsync_replies)
        if cast("int", stored) == EXPORT_OUTDATED:
            extra = {"action": "export_outdated", "pool": lease.pool, "credential_id": lease.credential_id}
            log.warning("the refresh token was rotated: its exported copy is no longer valid", extra=extra)
        elif cast("int", stored) != 1:
            raise LeaseLost("the lease was lost during the refresh")

    def _can_wait_for_fsync(self) -> bool:
        """Whether Redis has WAITAOF (7.2), which waits until a write is on disk; older ones fsync every second."""
        if self._supports_waitaof is None:
            version = str(self._redis.info("server")["redis_version"])
            self._supports_waitaof = tuple(int(part) for part in version.split(".")[:2]) >= (7, 2)
        return self._supports_waitaof

    def _log_fsync(self, fsync_replies: list[Any]) -> None:
        """Logs a failed wait; without an append-only file, which is the operator's choice, only once."""
        for reply in fsync_replies:
            if isinstance(reply, Exception):
                self._supports_waitaof = False
                log.warning("can't wait until tokens are on disk: %s", reply, extra={"action": "no_fsync"})
            elif not reply[0]:
                log.warning("Redis did not write a token to disk in time", extra={"action": "slow_fsync"})
