"""A request that creates something, and may come again with its idempotency key: it creates nothing a second time."""

from collections.abc import Callable, Mapping
from typing import Any

from redis import Redis

from shared.api_keys.api_key import ApiKey
from shared.creations.created_once import CreatedBefore, CreatedOther, KeptCreation, Once, find_kept
from shared.redis_connection.retry import retry_for
from web.replay.caller import HIT, MISS
from web.replay.idempotency_key import IDEMPOTENCY_HEADER, KEY_REUSED, parse_key
from web.replay.identity import identify_request, name_idempotency_key


class CreationRequest:
    """One request of an API key."""

    def __init__(self, redis: Redis, environ: Mapping[str, Any], key: ApiKey) -> None:
        """Raises ApiError 400, RedisError."""
        self._idempotency_key = parse_key(environ.get(IDEMPOTENCY_HEADER, ""))
        self._name = name_idempotency_key(self._idempotency_key, key.id) if self._idempotency_key else ""
        #: What an earlier request has created with the key, if any.
        self.kept: KeptCreation | None = retry_for(lambda: find_kept(redis, self._name)) if self._name else None
        #: Headers of the reply.
        self.headers: dict[str, str] = {}

    def create(self, fingerprint: bytes, work: Callable[[Once | None], dict[str, Any]]) -> dict[str, Any]:
        """Returns the answer of the first request, or that of `work`. Raises ApiError 422, and what `work` raises.

        `fingerprint` is equal for requests that ask for the same.
        """
        if not self._name:
            return work(None)
        once = Once(self._name, identify_request(self._name, self._idempotency_key, fingerprint).name)
        try:
            answer, outcome = self._find(once) or work(once), HIT if self.kept else MISS
        except CreatedBefore as before:
            answer, outcome = before.answer, HIT
        except CreatedOther:
            raise KEY_REUSED from None
        self.headers = {"x-farm-cache": outcome}
        return answer

    def _find(self, once: Once) -> dict[str, Any] | None:
        if self.kept and self.kept.print != once.print:
            raise KEY_REUSED
        return self.kept.answer if self.kept else None
