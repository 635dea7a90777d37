"""Stores the tokens of credentials, sealed, in Redis; a rotated one is durable before it is used (I4)."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import clock, keys
from shared.credentials.records import CHANGE_STATE
from shared.credentials.sealing import fingerprint
from shared.credentials.unsealing import Unsealer
from shared.errors import ForeignCredential, LeaseLost, TokenError
from shared.observability.counters import Counters
from shared.redis_connection.client import register_script
from workers.credentials.durability import DurableWriter
from workers.credentials.leases import Lease
from workers.credentials.refusals import Refusals
from workers.credentials.token_endpoint.token_response import TokenGrant

log = logging.getLogger("farm.tokens")
#: Result of store_grant.lua: stored, but an exported copy of the refresh token has become useless.
EXPORT_OUTDATED = 2


class TokenStore:
    """Reads and writes tokens. Only workers have one, because only they can unseal."""

    def __init__(
        self,
        redis: Redis,
        unsealer: Unsealer,
        counters: Counters,
        find_binding: Callable[[str], tuple[str, str]] = lambda _: ("", ""),
        *,
        replicas: int = 0,
        refresher_id: str = "",
    ) -> None:
        """`find_binding(pool)` returns the pool's kind of credential and its origin (token_origin.py), '' for any.

        `replicas`: how many of Redis's must hold a rotated token before it is used. `refresher_id`: the token refresher
        whose record of a refresh in flight a grant ends.
        """
        self._refresher_id = refresher_id
        self._redis = redis
        self._unsealer = unsealer
        self._counters = counters
        self._find_binding = find_binding
        self.durable_writer = DurableWriter(redis, replicas)
        self._store_script = register_script(redis, CHANGE_STATE, Path(__file__).with_name("store_grant.lua"))
        self._store_refusals_script = register_script(redis, Path(__file__).with_name("store_refusals.lua"))

    def use_header(self, *, is_readable: bool) -> None:
        """Whether to seal in the present format, because all live worker processes can read it."""
        self._unsealer.sealer.has_header = is_readable

    def seal(self, token: str, credential_id: str) -> bytes:
        """A token as it is stored for that credential."""
        return self._unsealer.sealer.seal(token, credential_id)

    @property
    def seals_header(self) -> bool:
        return self._unsealer.sealer.has_header

    def load(self, credential_id: str) -> tuple[str, str, float]:
        """The refresh token or another kind's secret, the access token ('' for none) and its expiry (since the epoch).

        Raises TokenError when the credential is gone, ForeignCredential when it belongs to another token endpoint or is
        of another kind.
        """
        sealed, access, expires, pool, origin, kind = self._redis.hmget(
            keys.credential(credential_id), ("sealed", "access", "access_expires", "pool", "token_origin", "kind")
        )
        if not sealed:
            raise TokenError("the credential is gone")
        pool_kind, pool_origin = self._find_binding(pool.decode() if pool else "")
        if pool_kind and pool_kind != (kind or b"refresh_token").decode():
            raise ForeignCredential("the credential is of another kind than its pool's (FARM_CREDENTIAL_KIND)")
        if pool_origin and pool_origin != (origin or b"").decode():
            raise ForeignCredential("the credential belongs to another token endpoint: `./farm credentials adopt`")
        access_token = self._unsealer.unseal(access, credential_id) if access else ""
        return self._unsealer.unseal(sealed, credential_id), access_token, float(expires or 0)

    def load_previous(self, credential_id: str) -> str:
        """The refresh token that the current one replaced; '' for none."""
        sealed = self._redis.hget(keys.credential(credential_id), "previous")
        return self._unsealer.unseal(sealed, credential_id) if sealed else ""

    def is_proven(self, credential_id: str) -> bool:
        """Whether the token endpoint has ever granted the credential a token."""
        return bool(self._redis.hexists(keys.credential(credential_id), "refreshed_at"))

    def load_refusals(self, credential_id: str) -> Refusals:
        """The refusals of its refresh token since its last grant."""
        return Refusals.decode(self._redis.hget(keys.credential(credential_id), "refusals"))

    def store_refusals(self, lease: Lease, refusals: Refusals | None) -> None:
        """Stores them, for the next process that has the credential too; None clears them."""
        script_keys = [keys.credential(lease.credential_id), lease.key]
        self._store_refusals_script(keys=script_keys, args=[lease.value, refusals.encode() if refusals else ""])

    def store(
        self,
        lease: Lease,
        current_token: str,
        grant: TokenGrant,
        exchanged_token: str = "",
        *,
        on_stored: Callable[[], None] = lambda: None,
    ) -> None:
        """Stores a grant in place of the current refresh token; returns once it is durable. Idempotent.

        `exchanged_token` is the one that was accepted, if that was not the current but the superseded one: it becomes
        the current one again, because the current one is refused, unless the grant rotates it. `on_stored` is called
        once Redis has it, which is before it is durable.

        Raises LeaseLost when another process holds the credential by now.
        """
        seal = self._unsealer.sealer.seal
        superseded = exchanged_token if exchanged_token != current_token else ""
        rotated = grant.refresh_token or superseded
        script_keys = [keys.credential(lease.credential_id), lease.key, keys.fingerprints(lease.pool)]
        script_keys += [keys.credentials(lease.pool), keys.history(lease.credential_id)]
        args = [
            lease.value,
            fingerprint(current_token),
            seal(grant.access_token, lease.credential_id),
            clock.now() + grant.expires_in,
            clock.now(),
            fingerprint(rotated) if rotated else "",
            seal(rotated, lease.credential_id) if rotated else "",
            lease.credential_id,
            seal(superseded, lease.credential_id) if superseded and rotated != superseded else "",
            self._refresher_id,
        ]
        stored = (self._write_durably if rotated else self._write)(script_keys, args, on_stored)
        if stored == EXPORT_OUTDATED:
            extra = {"action": "export_outdated", "pool": lease.pool, "credential_id": lease.credential_id}
            log.warning("the refresh token was rotated: its exported copy is no longer valid", extra=extra)
        elif stored != 1:
            raise LeaseLost("the lease was lost during the refresh")

    def _write_durably(self, script_keys: list[str], args: list[Any], on_stored: Callable[[], None]) -> int:
        """Writes a rotated token and waits until it is durable; for how long, see DurableWriter.

        After that it is used all the same, which is logged as an error and counted: the old token is worthless already,
        so a credential that is stopped would be no safer.
        """
        stored, reason = self.durable_writer.write(
            lambda client: self._store_script(keys=script_keys, args=args, client=client), on_stored
        )
        if reason:
            self._counters.increment("tokens_not_durable", reason)
        return cast("int", stored)

    def _write(self, script_keys: list[str], args: list[Any], on_stored: Callable[[], None]) -> int:
        stored = cast("int", self._store_script(keys=script_keys, args=args))
        on_stored()
        return stored
