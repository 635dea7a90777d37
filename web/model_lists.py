"""The upstreams' model lists: one per pool for all callers, fetched by a worker and kept in Redis.

A list that is no longer fresh is still served while one front renews it, so that callers wait for the first fetch only,
and for seconds: the fetch needs an account, and goes on when they have all given up. A failed fetch is remembered for
seconds: no number of callers makes more than one job of it.
"""

import json
import logging
import math
import time
from typing import Any

import gevent
from gevent.pool import Group
from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys, names
from shared.api_keys.api_key import ApiKey
from shared.errors import ApiError
from shared.protocol.messages import RelayRequest
from shared.settings.schema import PoolSettings
from web.model_list_parser import parse_models
from web.request.capacity.overload import overloaded_error
from web.request.pending import PendingRequest, RequestServices
from web.request.rendering import NO_TIMEOUT
from web.single_flight_cache import SingleFlightCache

log = logging.getLogger("farm.models")
#: Seconds that a list is fresh, and that it is kept in case it can't be renewed.
FRESH_SECONDS, KEPT_SECONDS = 300, 7 * 86_400
#: Seconds that a caller waits: clients that ask for the list first show an empty page meanwhile, and give up after 5.
MAX_WAIT_SECONDS = 4.0
#: Seconds that a failed fetch is remembered.
FAILURE_SECONDS = 10
#: Seconds for one fetch, with its time in the queue; and after which another front may try.
FETCH_TIMEOUT_SECONDS = 30.0
RENEWAL_TTL_SECONDS = 45
#: Seconds between two looks for the list that another front is fetching.
POLL_SECONDS = 0.2
#: Bytes of a list.
MAX_LIST_BYTES = 4 * 1024 * 1024
#: The key that lists are fetched with: not a caller's, so that they count towards no limits.
FARM_KEY = ApiKey(id="-", hint="", created_at=0)
#: Value of the renewal key while the list is being fetched; afterwards it holds the error, if any.
IN_PROGRESS = b""


class ModelLists:
    """The model lists of all pools, as one front sees them."""

    def __init__(self, redis: Redis, services: RequestServices) -> None:
        self._redis = redis
        self._services = services
        self._fetches = Group()
        self._cache: SingleFlightCache[str, list[dict[str, Any]]] = SingleFlightCache(self._load)

    def get(self, pool: str) -> list[dict[str, Any]]:
        """Raises ApiError when there is no list and none can be fetched."""
        return self._cache.get(pool)

    def find_known(self, pool: str) -> list[dict[str, Any]]:
        """The list as it is kept, however old; empty if there is none. Nothing is fetched."""
        stored = self._redis.get(keys.models(pool))
        return (parse_models(stored) if stored else None) or []

    def _load(self, pool: str) -> list[dict[str, Any]]:
        give_up_at = time.monotonic() + MAX_WAIT_SECONDS
        while True:
            stored, is_fresh, renewal = self._read(pool)
            models = None if stored is None else parse_models(stored)
            if models is not None and (is_fresh or renewal is not None):
                return models
            if renewal:
                raise decode_error(renewal)
            is_ours = renewal is None and self._redis.set(
                keys.models_renewal(pool), IN_PROGRESS, nx=True, ex=RENEWAL_TTL_SECONDS
            )
            # Not in the caller's greenlet: the others wait for this list, too.
            fetch = self._fetches.spawn(self._renew, pool) if is_ours else None
            if models is not None:
                return models
            if time.monotonic() >= give_up_at:
                raise self._build_not_ready_error(pool)
            if fetch is None:
                gevent.sleep(POLL_SECONDS)
            elif error := await_fetch(fetch, give_up_at - time.monotonic()):
                raise error

    def _build_not_ready_error(self, pool: str) -> ApiError:
        message = "the upstream's model list is not known yet, and all accounts are busy; try again later"
        rest = self._services.availability.find_rest(pool)
        seconds = max(MAX_WAIT_SECONDS, rest.ends_at - clock.now() if rest else 0.0)
        return overloaded_error("models_not_ready", message, math.ceil(seconds))

    def _read(self, pool: str) -> tuple[bytes | None, bool, bytes | None]:
        """The stored list, whether it is fresh, and the state of its renewal; None for what there is not."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(keys.models(pool))
            pipe.ttl(keys.models(pool))
            pipe.get(keys.models_renewal(pool))
            stored, ttl, renewal = pipe.execute()
        return stored, ttl > KEPT_SECONDS - FRESH_SECONDS, renewal

    def _renew(self, pool: str) -> ApiError | None:
        """Fetches and stores the list, or the error, which it returns."""
        try:
            try:
                self._services.availability.check(pool)
                self._services.overload.check_rest(pool, clock.now() + FETCH_TIMEOUT_SECONDS)
            except ApiError as error:
                self._redis.delete(keys.models_renewal(pool))
                return error
            try:
                body = self._fetch(pool)
            except ApiError as error:
                self._redis.set(keys.models_renewal(pool), encode_error(error), ex=FAILURE_SECONDS)
                return error
            with self._redis.pipeline() as pipe:
                pipe.set(keys.models(pool), body, ex=KEPT_SECONDS)
                pipe.delete(keys.models_renewal(pool))
                pipe.execute()
        except RedisError as error:
            log.warning("can't renew a model list: %s", error, extra={"action": "redis_lost"})
            return ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error")
        return None

    def _fetch(self, pool: str) -> bytes:
        """Fetches the list through a worker, because only workers have access tokens. Raises ApiError."""
        now, request_id = time.time(), names.new_request_id()
        request = RelayRequest(
            id=request_id,
            pool=pool,
            path="/models",
            headers={"accept": "application/json"},
            front=self._services.hub.front_id,
            channel=self._services.hub.channel(request_id),
            enqueued_at=now,
            deadline=now + FETCH_TIMEOUT_SECONDS,
            method="GET",
        )
        pending_request = PendingRequest(self._services, request, FARM_KEY, None)
        pending_request.submit(b"")
        try:
            head, frames = pending_request.wait_for_head(NO_TIMEOUT)
            body = bytearray()
            for data in pending_request.iter_body(frames, NO_TIMEOUT):
                body += data
                if len(body) > MAX_LIST_BYTES:
                    raise cannot_fetch_error()
        finally:
            pending_request.close()
        if head.status != 200 or parse_models(bytes(body)) is None:
            raise cannot_fetch_error()
        return bytes(body)


def cannot_fetch_error() -> ApiError:
    return ApiError(502, "upstream_error", "the upstream's model list can't be fetched", "upstream_error")


def await_fetch(fetch: "gevent.Greenlet[..., ApiError | None]", seconds: float) -> ApiError | None:
    """Waits for a fetch, which goes on afterwards; returns its error, None if it has none yet."""
    fetch.join(timeout=seconds)
    return fetch.get() if fetch.ready() else None


def encode_error(error: ApiError) -> str:
    return json.dumps([error.status, error.code, error.message, error.type])


def decode_error(encoded: bytes) -> ApiError:
    status, code, message, type_ = json.loads(encoded)
    return ApiError(status, code, message, type_, headers={"retry-after": str(FAILURE_SECONDS)})


def load_models(model_lists: ModelLists, pool: PoolSettings) -> list[dict[str, Any]] | ApiError:
    """Returns the models of one pool, or why there are none."""
    try:
        return list_configured(pool) or model_lists.get(pool.name)
    except ApiError as error:
        return error


def list_configured(pool: PoolSettings) -> list[dict[str, Any]]:
    """Lists a pool's configured model names, including mapped ones."""
    names = dict.fromkeys((*pool.models, *pool.model_map)) if pool.models else {}
    return [{"id": name, "object": "model", "created": 0, "owned_by": pool.configured_name} for name in names]
