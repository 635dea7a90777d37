"""Callers who present a refresh token of their own in place of an API key, where a pool allows that.

The token becomes a private credential (shared/credentials/private.py). An unknown one is tried first, by a worker at
the token endpoint, and is known from then on; whoever presents wrong ones has to wait.
"""

import ipaddress
import logging
import time
from collections.abc import Sequence

from gevent.lock import BoundedSemaphore
from redis import Redis

from shared import keys, names
from shared.api_keys.api_key import ApiKey
from shared.credentials.private import KnownToken, PrivateCredentials, caller_id
from shared.credentials.sealing import fingerprint
from shared.credentials.token_import import classify_lines
from shared.errors import ApiError
from shared.ip_addresses import parse_address
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations, NoWorkerProcess
from shared.settings.schema import PoolSettings
from web.single_flight_cache import SingleFlightCache

log = logging.getLogger("farm.web")
#: Names the pool of the token, where several pools take one.
POOL_HEADER = "x-farm-pool"
#: What the farm's own API keys and admin tokens begin with: a misplaced one must not be sent to a token endpoint.
OWN_SECRET_PREFIXES = ("sk-", "admin-")
#: Tokens from one network that were tried and not good, after which it has to wait, for so many seconds.
MAX_WRONG_TOKENS, BAN_SECONDS = 5, 300
#: Seconds that a token which was refused is refused without being tried again, and one that was not tried is kept.
REFUSED_TTL_SECONDS = 60
#: Tokens of one front that are tried at once, and seconds that it takes at most to wait for that and for the answer.
MAX_CONCURRENT_TRIALS, TRIAL_TIMEOUT_SECONDS = 4, 20.0
#: Prefix lengths of what counts as one network: who has an IPv6 address has a whole /64 of them (RFC 6177).
NETWORK_PREFIX_LENGTHS = {4: 32, 6: 64}


class PrivateCaller(ApiKey):
    """A caller with an account of its own: no limits, and no pool but that account's."""

    pool: str


class PrivateCallers:
    """Knows private credentials by the token that their caller presents."""

    def __init__(self, redis: Redis, pools: Sequence[PoolSettings]) -> None:
        self._redis = redis
        self._pools = {pool.name: pool for pool in pools if pool.private_credentials}
        self._store = PrivateCredentials(redis)
        self._operations = CredentialOperations(redis)
        self._trial_slots = BoundedSemaphore(MAX_CONCURRENT_TRIALS)
        self._cache: SingleFlightCache[tuple[str, str, str], KnownToken] = SingleFlightCache(
            lambda cache_key: self._resolve(*cache_key)
        )

    def may_be_token(self, token: str) -> bool:
        """Whether that may be a refresh token, as far as its looks go."""
        kinds = [kind for kind, _ in classify_lines([token])]
        return bool(self._pools) and kinds == ["token"] and not token.startswith(OWN_SECRET_PREFIXES)

    def authenticate(self, token: str, address: str, pool_name: str) -> PrivateCaller:
        """Who presents a token, from that address, for that pool, '' for the only one. Raises ApiError."""
        credential = self._cache.get((self._select_pool(pool_name).name, token, address))
        if credential.state == "dead":
            raise token_refused_error()
        if credential.state == "disabled":
            raise ApiError(403, "private_credential_disabled", "the farm's operator has disabled this account")
        return PrivateCaller(id=caller_id(credential.credential_id), hint="", created_at=0, pool=credential.pool)

    def _select_pool(self, pool_name: str) -> PoolSettings:
        candidates = [pool for pool in self._pools.values() if pool_name in ("", pool.name)]
        if len(candidates) != 1:
            pool_names = ", ".join(self._pools)
            raise ApiError(
                401, "private_pool_needed", f"say whose refresh token that is: `{POOL_HEADER}: {pool_names}`"
            )
        return candidates[0]

    def _resolve(self, pool: str, token: str, address: str) -> KnownToken:
        """What is known of a token, after it was tried if it is new. Raises ApiError."""
        credential = self._store.find(pool, token)
        if credential and not names.is_private(credential.pool):
            raise ApiError(403, "private_token_taken", "this account serves the farm's own pool")
        if credential and (credential.is_proven or credential.state == "disabled"):
            self._store.touch(credential.pool)
            return credential
        self._count_trial(token, address)
        private_pool = credential.pool if credential else self._store.add(pool, token, self._pools[pool].private_most)
        if not private_pool:
            message = "the farm takes no more accounts of callers now; try again later"
            raise ApiError(429, "private_credentials_full", message, "rate_limit_error", headers={"retry-after": "60"})
        return self._verify(pool, private_pool, token, address)

    def _count_trial(self, token: str, address: str) -> None:
        """Counts the token until it has turned out good, so that many at once are not tried either.

        Raises ApiError when it was refused a moment ago, or too many others from there were.
        """
        trials_key, token_fingerprint = keys.token_tries(caller_network(address)), fingerprint(token)
        with self._redis.pipeline() as pipe:
            pipe.exists(keys.refused_token(token_fingerprint))
            pipe.sadd(trials_key, token_fingerprint)
            pipe.scard(trials_key)
            pipe.expire(trials_key, BAN_SECONDS)
            was_refused, is_new, trials, _ = pipe.execute()
        if was_refused:
            raise token_refused_error()
        if trials > MAX_WRONG_TOKENS:
            if is_new:
                self._redis.srem(trials_key, token_fingerprint)
            message = "too many wrong refresh tokens from here; try again later"
            raise ApiError(
                429, "too_many_tokens", message, "rate_limit_error", headers={"retry-after": str(BAN_SECONDS)}
            )

    def _verify(self, pool: str, private_pool: str, token: str, address: str) -> KnownToken:
        """The token, tried: a real refresh by a worker. One that is refused is forgotten. Raises ApiError.

        Of one that could not be tried nobody knows whether it has rotated: it stays for a minute, to be tried again.
        """
        if not self._trial_slots.acquire(timeout=TRIAL_TIMEOUT_SECONDS):
            raise token_not_tried_error("the farm tries too many refresh tokens now")
        try:
            self._operations.request(
                CredentialOperation(private_pool, names.private_credential_id(private_pool), "refresh"),
                TRIAL_TIMEOUT_SECONDS,
            )
        except NoWorkerProcess as error:
            log.warning("a refresh token could not be tried: %s", error, extra={"action": "private_untried"})
        finally:
            self._trial_slots.release()
        credential = self._store.find(pool, token)
        if credential and credential.state == "dead":
            self._record_refused(token, address)
            self._store.forget(credential.pool)
            raise token_refused_error()
        if credential and credential.is_proven:
            self._redis.srem(keys.token_tries(caller_network(address)), fingerprint(token))
            log.info("a private credential is new", extra={"action": "private_added", "pool": pool})
            return credential
        if credential:
            self._store.touch(credential.pool, time.time() - self._pools[pool].private_idle + REFUSED_TTL_SECONDS)
        raise token_not_tried_error("the token endpoint could not be asked")

    def _record_refused(self, token: str, address: str) -> None:
        log.warning(
            "a refresh token was refused", extra={"action": "private_refused", "reason": caller_network(address)}
        )
        self._redis.set(keys.refused_token(fingerprint(token)), 1, ex=REFUSED_TTL_SECONDS)


def caller_network(address: str) -> str:
    """What counts as one place that tokens are presented from."""
    ip_address = parse_address(address)
    if ip_address is None:
        return "?"
    return str(ipaddress.ip_network((ip_address, NETWORK_PREFIX_LENGTHS[ip_address.version]), strict=False))


def token_refused_error() -> ApiError:
    """The answer to a refresh token that the token endpoint refuses."""
    return ApiError(401, "invalid_refresh_token", "the upstream refuses this refresh token")


def token_not_tried_error(reason: str) -> ApiError:
    """The answer to a new token that could not be tried."""
    return ApiError(503, "token_not_tried", f"{reason}; try again later", "server_error", headers={"retry-after": "10"})
