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
from shared.credentials.private import Known, PrivateCredentials, caller_id
from shared.credentials.sealing import fingerprint
from shared.credentials.token_import import sorted_lines
from shared.errors import ApiError
from shared.ip_addresses import parsed
from shared.protocol.credential_operations import Errand, Errands, NobodyThere
from shared.settings.schema import PoolSettings
from web.single_flight_cache import Believed

log = logging.getLogger("farm.web")
#: Names the pool of the token, where several pools take one.
POOL_HEADER = "x-farm-pool"
#: What the farm's own API keys and admin tokens begin with: a misplaced one must not be sent to a token endpoint.
OWN_SECRETS = ("sk-", "admin-")
#: Tokens from one network that were tried and not good, after which it has to wait, for so many seconds.
PATIENCE, BAN = 5, 300
#: Seconds that a token which was refused is refused without being tried again, and one that was not tried is kept.
REFUSED = 60
#: Tokens of one front that are tried at once, and seconds that it takes at most to wait for that and for the answer.
AT_ONCE, LONGEST = 4, 20.0
#: Prefix lengths of what counts as one network: who has an IPv6 address has a whole /64 of them (RFC 6177).
ONE_NETWORK = {4: 32, 6: 64}


class PrivateCaller(ApiKey):
    """A caller with an account of its own: no limits, and no pool but that account's."""

    pool: str


class PrivateCallers:
    """Knows private credentials by the token that their caller presents."""

    def __init__(self, redis: Redis, pools: Sequence[PoolSettings]) -> None:
        self._redis = redis
        self._pools = {pool.name: pool for pool in pools if pool.private_credentials}
        self._store = PrivateCredentials(redis)
        self._errands = Errands(redis)
        self._trying = BoundedSemaphore(AT_ONCE)
        self._known: Believed[tuple[str, str, str], Known] = Believed(lambda asked: self._look(*asked))

    def takes(self, token: str) -> bool:
        """Whether that may be a refresh token, as far as its looks go."""
        kinds = [kind for kind, _ in sorted_lines([token])]
        return bool(self._pools) and kinds == ["token"] and not token.startswith(OWN_SECRETS)

    def caller(self, token: str, address: str, wanted: str) -> PrivateCaller:
        """Who presents a token, from that address, for that pool, '' for the only one. Raises ApiError."""
        known = self._known.get((self._pool(wanted).name, token, address))
        if known.state == "dead":
            raise refused_token()
        if known.state == "disabled":
            raise ApiError(403, "private_credential_disabled", "the farm's operator has disabled this account")
        return PrivateCaller(id=caller_id(known.credential_id), hint="", created_at=0, pool=known.pool)

    def _pool(self, wanted: str) -> PoolSettings:
        found = [pool for pool in self._pools.values() if wanted in ("", pool.name)]
        if len(found) != 1:
            names = ", ".join(self._pools)
            raise ApiError(401, "private_pool_needed", f"say whose refresh token that is: `{POOL_HEADER}: {names}`")
        return found[0]

    def _look(self, pool: str, token: str, address: str) -> Known:
        """What is known of a token, after it was tried if it is new. Raises ApiError."""
        known = self._store.find(pool, token)
        if known and not names.is_private(known.pool):
            raise ApiError(403, "private_token_taken", "this account serves the farm's own pool")
        if known and (known.is_proven or known.state == "disabled"):
            self._store.used(known.pool)
            return known
        self._reserve(token, address)
        name = known.pool if known else self._store.add(pool, token, self._pools[pool].private_most)
        if not name:
            message = "the farm takes no more accounts of callers now; try again later"
            raise ApiError(429, "private_credentials_full", message, "rate_limit_error", headers={"retry-after": "60"})
        return self._proven(pool, name, token, address)

    def _reserve(self, token: str, address: str) -> None:
        """Counts the token until it has turned out good, so that many at once are not tried either.

        Raises ApiError when it was refused a moment ago, or too many others from there were.
        """
        place, print_ = keys.token_tries(network(address)), fingerprint(token)
        with self._redis.pipeline() as pipe:
            pipe.exists(keys.refused_token(print_))
            pipe.sadd(place, print_)
            pipe.scard(place)
            pipe.expire(place, BAN)
            again, new, tries, _ = pipe.execute()
        if again:
            raise refused_token()
        if tries > PATIENCE:
            if new:
                self._redis.srem(place, print_)
            message = "too many wrong refresh tokens from here; try again later"
            raise ApiError(429, "too_many_tokens", message, "rate_limit_error", headers={"retry-after": str(BAN)})

    def _proven(self, pool: str, name: str, token: str, address: str) -> Known:
        """The token, tried: a real refresh by a worker. One that is refused is forgotten. Raises ApiError.

        Of one that could not be tried nobody knows whether it has rotated: it stays for a minute, to be tried again.
        """
        if not self._trying.acquire(timeout=LONGEST):
            raise not_tried("the farm tries too many refresh tokens now")
        try:
            self._errands.ask(Errand(name, names.private_id(name), "refresh"), LONGEST)
        except NobodyThere as error:
            log.warning("a refresh token could not be tried: %s", error, extra={"action": "private_untried"})
        finally:
            self._trying.release()
        found = self._store.find(pool, token)
        if found and found.state == "dead":
            self._note_refused(token, address)
            self._store.forget(found.pool)
            raise refused_token()
        if found and found.is_proven:
            self._redis.srem(keys.token_tries(network(address)), fingerprint(token))
            log.info("a private credential is new", extra={"action": "private_added", "pool": pool})
            return found
        if found:
            self._store.used(found.pool, time.time() - self._pools[pool].private_idle + REFUSED)
        raise not_tried("the token endpoint could not be asked")

    def _note_refused(self, token: str, address: str) -> None:
        log.warning("a refresh token was refused", extra={"action": "private_refused", "reason": network(address)})
        self._redis.set(keys.refused_token(fingerprint(token)), 1, ex=REFUSED)


def network(address: str) -> str:
    """What counts as one place that tokens are presented from."""
    found = parsed(address)
    if found is None:
        return "?"
    return str(ipaddress.ip_network((found, ONE_NETWORK[found.version]), strict=False))


def refused_token() -> ApiError:
    """The answer to a refresh token that the token endpoint refuses."""
    return ApiError(401, "invalid_refresh_token", "the upstream refuses this refresh token")


def not_tried(why: str) -> ApiError:
    """The answer to a new token that could not be tried."""
    return ApiError(503, "token_not_tried", f"{why}; try again later", "server_error", headers={"retry-after": "10"})
