"""Authenticates callers who present their own refresh token instead of an API key, where a pool allows that.

The token becomes a private credential (shared/credentials/private.py). An unknown one is first verified by a worker at
the token endpoint. A network that presents too many invalid tokens is banned for a while.
"""

import logging
from collections.abc import Sequence

from gevent.lock import BoundedSemaphore
from redis import Redis

from shared import clock, keys, names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.store import hash_secret
from shared.credentials.importing.secret_choice import is_token
from shared.credentials.private import KnownToken, PrivateCredentials, caller_id
from shared.credentials.sealing import fingerprint
from shared.credentials.token_origin import compute_token_origin
from shared.errors import ApiError
from shared.network.ip_addresses import caller_network
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations, NoWorkerProcess
from shared.settings.schema import PoolSettings
from web.single_flight_cache import SingleFlightCache

log = logging.getLogger("farm.web")
#: The header that names the token's pool, where several pools take private credentials.
POOL_HEADER = "x-farm-pool"
#: Prefixes of the farm's own API keys and admin tokens: a misplaced or mistyped one is not sent to a token endpoint.
OWN_SECRET_PREFIXES = ("sk-", "admin-")
#: Invalid tokens after which a network is banned, and the duration of the ban in seconds.
MAX_INVALID_TOKENS, BAN_SECONDS = 5, 300
#: Seconds that a refused token is not verified again, and that an unverifiable one is kept.
REFUSED_TTL_SECONDS = 60
#: Concurrent verifications per front, and the timeout in seconds of the wait for a slot and of the verification.
MAX_CONCURRENT_VERIFICATIONS, VERIFICATION_TIMEOUT_SECONDS = 4, 20.0


class PrivateCaller(ApiKey):
    """A caller with a private credential: no limits, and no pool but its own."""

    pool: str


class PrivateCallers:
    """Authenticates callers by their refresh tokens, each looked up at most once a second."""

    def __init__(self, redis: Redis, pools: Sequence[PoolSettings], operations: CredentialOperations) -> None:
        self._redis = redis
        self._pools = {pool.name: pool for pool in pools if pool.private_credentials}
        self._all_pools = [pool.name for pool in pools]
        self._store = PrivateCredentials(redis)
        self._operations = operations
        self._verification_slots = BoundedSemaphore(MAX_CONCURRENT_VERIFICATIONS)
        self._cache: SingleFlightCache[tuple[str, str, str], KnownToken] = SingleFlightCache(
            lambda cache_key: self._resolve(*cache_key)
        )

    def may_be_token(self, token: str) -> bool:
        """Whether the string looks like a refresh token that some pool takes."""
        return bool(self._pools) and is_token(token) and not token.startswith(OWN_SECRET_PREFIXES)

    def authenticate(self, token: str, address: str, pool_name: str) -> PrivateCaller:
        """Authenticates a token presented from `address` for a pool, '' for the only one. Raises ApiError."""
        credential = self._cache.get((self._select_pool(pool_name).name, token, address))
        if credential.state == "dead":
            raise token_refused_error()
        if credential.state == "disabled":
            raise ApiError(403, "private_credential_disabled", "the farm's operator has disabled this credential")
        return PrivateCaller(id=caller_id(credential.credential_id), hint="", created_at=0, pool=credential.pool)

    def _select_pool(self, pool_name: str) -> PoolSettings:
        candidates = [pool for pool in self._pools.values() if pool_name in ("", pool.name)]
        if len(candidates) != 1:
            pool_names = ", ".join(self._pools)
            raise ApiError(401, "private_pool_needed", f"name the refresh token's pool: `{POOL_HEADER}: {pool_names}`")
        return candidates[0]

    def _resolve(self, pool: str, token: str, address: str) -> KnownToken:
        """Returns the credential of a token, verified first if it is new. Raises ApiError."""
        credential = self._store.find(pool, token)
        if credential and not names.is_private(credential.pool):
            raise ApiError(403, "private_token_taken", "this refresh token belongs to a credential of the farm")
        if credential and (credential.is_proven or credential.state == "disabled"):
            self._store.touch(credential.pool)
            return credential
        if credential is None:
            self._check_own_secret(token)
        self._count_unverified(token, address)
        private_pool = credential.pool if credential else self._add(self._pools[pool], token)
        if not private_pool:
            message = "the farm has no room for another private credential; try again later"
            raise ApiError(429, "private_credentials_full", message, "rate_limit_error", headers={"retry-after": "60"})
        return self._verify(pool, private_pool, token, address)

    def _add(self, pool: PoolSettings, token: str) -> str:
        return self._store.add(pool.name, token, pool.private_most, compute_token_origin(pool))

    def _check_own_secret(self, token: str) -> None:
        """Raises ApiError if the unknown token is a secret of the farm, which must not be sent to a token endpoint.

        That is an admin token or API key, whatever it looks like, or a refresh token of another pool. Looks them up in
        Redis, because the front's caches may be a second old.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hexists(keys.ADMIN_TOKENS, hash_secret(token))
            pipe.hexists(keys.API_KEYS, hash_secret(token))
            pipe.hexists(keys.SUPERSEDED_API_KEYS, hash_secret(token))
            for pool in self._all_pools:
                pipe.hexists(keys.fingerprints(pool), fingerprint(token))
            is_admin_token, is_api_key, was_api_key, *in_pools = pipe.execute()
        if is_admin_token or is_api_key or was_api_key:
            raise ApiError(
                401, "invalid_api_key", "Incorrect API key provided.", headers={"www-authenticate": "Bearer"}
            )
        if any(in_pools):
            raise ApiError(403, "private_token_taken", "this refresh token belongs to a credential of another pool")

    def _count_unverified(self, token: str, address: str) -> None:
        """Counts the token as invalid until it is verified, which bounds concurrent verifications too.

        Raises ApiError if the token was refused recently, or too many others from the network were.
        """
        unverified_key, token_fingerprint = keys.token_tries(caller_network(address)), fingerprint(token)
        with self._redis.pipeline() as pipe:
            pipe.exists(keys.refused_token(token_fingerprint))
            pipe.sadd(unverified_key, token_fingerprint)
            pipe.scard(unverified_key)
            pipe.expire(unverified_key, BAN_SECONDS)
            was_refused, is_new, unverified_count, _ = pipe.execute()
        if was_refused:
            raise token_refused_error()
        if unverified_count > MAX_INVALID_TOKENS:
            if is_new:
                self._redis.srem(unverified_key, token_fingerprint)
            message = "too many invalid refresh tokens from this network; try again later"
            raise ApiError(
                429, "too_many_tokens", message, "rate_limit_error", headers={"retry-after": str(BAN_SECONDS)}
            )

    def _verify(self, pool: str, private_pool: str, token: str, address: str) -> KnownToken:
        """Has a worker refresh the token; forgets a refused one. Raises ApiError.

        A token that could not be verified may or may not have been rotated: it is kept for a minute, for a retry.
        """
        if not self._verification_slots.acquire(timeout=VERIFICATION_TIMEOUT_SECONDS):
            raise token_not_tried_error("too many refresh tokens are being verified")
        try:
            self._operations.request(
                CredentialOperation(private_pool, names.private_credential_id(private_pool), "refresh"),
                VERIFICATION_TIMEOUT_SECONDS,
            )
        except NoWorkerProcess as error:
            log.warning("a refresh token could not be verified: %s", error, extra={"action": "private_untried"})
        finally:
            self._verification_slots.release()
        credential = self._store.find(pool, token)
        if credential and credential.state == "dead":
            self._record_refused(token, address)
            self._store.forget(credential.pool)
            raise token_refused_error()
        if credential and credential.is_proven:
            self._redis.srem(keys.token_tries(caller_network(address)), fingerprint(token))
            log.info("a private credential was added", extra={"action": "private_added", "pool": pool})
            return credential
        if credential:
            self._store.touch(credential.pool, clock.now() - self._pools[pool].private_idle + REFUSED_TTL_SECONDS)
        raise token_not_tried_error("the refresh token could not be verified")

    def _record_refused(self, token: str, address: str) -> None:
        log.warning(
            "a refresh token was refused", extra={"action": "private_refused", "reason": caller_network(address)}
        )
        self._redis.set(keys.refused_token(fingerprint(token)), 1, ex=REFUSED_TTL_SECONDS)


def token_refused_error() -> ApiError:
    return ApiError(401, "invalid_refresh_token", "the upstream refuses this refresh token")


def token_not_tried_error(reason: str) -> ApiError:
    return ApiError(503, "token_not_tried", f"{reason}; try again later", "server_error", headers={"retry-after": "10"})
