"""Binds each credential to the origin of the token endpoint that it was given for.

An origin is scheme, host and port (RFC 6454): who operates that endpoint. A path may change there without harm, but a
refresh token that is shown to another origin is disclosed to it, and refused, which would be taken for its death.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from redis import Redis

from shared import keys
from shared.credentials.records import CHANGE_STATE
from shared.errors import FarmError
from shared.redis_connection.client import register_script
from shared.settings.schema import PoolSettings

#: The origin of the bundled simulator, which listens on another port each time.
SIMULATOR_ORIGIN = "simulator"
DEFAULT_PORTS = {"http": 80, "https": 443}


def compute_token_origin(pool: PoolSettings) -> str:
    """The origin of the pool's token endpoint, such as `https://login.example`; '' when it has none.

    Where the issuer's metadata names the endpoint, that is the issuer's: whoever operates it answers for the endpoint.
    API keys have no token endpoint: they are bound to the origin of the upstream.
    """
    if pool.simulator:
        return SIMULATOR_ORIGIN
    url = pool.upstream_url if pool.credential_kind == "api_key" else pool.token_url or pool.issuer
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return url
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    suffix = "" if port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{host}{suffix}" if url else ""


def origin_for_new_tokens(pool: PoolSettings) -> str:
    """The origin of tokens that an operator adds: the pool's, but '' (not known yet) while that is the simulator."""
    origin = compute_token_origin(pool)
    return "" if origin == SIMULATOR_ORIGIN else origin


class TokenOrigins:
    """Keeps the state `foreign` of credentials in line with the token endpoints of their pools."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        folder = Path(__file__).parent
        self._reconcile_script = register_script(redis, CHANGE_STATE, folder / "reconcile_origins.lua")
        self._set_fields_script = register_script(redis, folder / "set_fields.lua")

    def reconcile(self, pools: Iterable[PoolSettings]) -> dict[str, tuple[int, int]]:
        """Marks credentials of another endpoint `foreign`, and reactivates those whose endpoint is back.

        A credential without an origin, as older versions stored it, adopts its pool's, except the simulator's. Returns
        how many became foreign and active, by pool, for those pools where any did.
        """
        pools = list(pools)
        with self._redis.pipeline(transaction=False) as pipe:
            for pool in pools:
                self._reconcile_script(
                    keys=[keys.credentials(pool.name)],
                    args=[
                        *(compute_token_origin(pool), SIMULATOR_ORIGIN, keys.credential(""), keys.history("")),
                        pool.credential_kind,
                    ],
                    client=pipe,
                )
            replies = cast("list[Any]", pipe.execute())
        changes = {pool.name: (int(reply[0]), int(reply[1])) for pool, reply in zip(pools, replies, strict=True)}
        return {name: change for name, change in changes.items() if any(change)}

    def adopt(self, pool: PoolSettings, credential_id: str) -> None:
        """Binds a credential to its pool's present endpoint, on an operator's request, and reactivates it.

        Its access token, issued by the other endpoint, is dropped. Where this process does not know the endpoint, a
        worker process binds the credential. Raises FarmError when the pool takes another kind of credential.
        """
        record_key = keys.credential(credential_id)
        kind = (self._redis.hget(record_key, "kind") or b"refresh_token").decode()
        if kind != pool.credential_kind:
            raise FarmError(f"{credential_id} is of kind {kind}, and pool {pool.name} takes {pool.credential_kind}")
        with self._redis.pipeline(transaction=True) as pipe:
            fields = ("token_origin", origin_for_new_tokens(pool))
            self._set_fields_script(keys=[record_key], args=["access", *fields], client=pipe)
            pipe.hdel(record_key, "access_expires")
            pipe.execute()
        if origin_for_new_tokens(pool):
            self.reconcile([pool])
