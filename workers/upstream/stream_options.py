"""The `stream_options` that the farm adds to a stream for its usage, and upstreams that refuse them.

What the farm adds is the farm's risk: a request that an upstream refuses because of it is sent once more without it,
and the pool's later ones are sent without it from the start.
"""

import logging
import re
import time

import gevent
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.json_object import remove_member, replace_member
from shared.parsing import parse_json_object

log = logging.getLogger("farm.relay")
#: Seconds after which a pool is asked again: its upstream may have been upgraded.
REMEMBERED_SECONDS = 86_400
#: Statuses of a request that is wrong; such a refusal need not say what it is about.
BAD_REQUEST_STATUSES = (400, 422)
#: Statuses that are about something else, whatever the body says.
UNRELATED_STATUSES = (401, 402, 403, 407, 408, 429)
#: How refusals name what they refuse.
NAMES = re.compile(rb"stream_?options|include_?usage", re.IGNORECASE)
#: The end of a body to which the front has added the member.
ADDED = b', "stream_options": {"include_usage": true}}'


class StreamOptionsSupport:
    """Whether one pool's upstream takes `stream_options`, as far as this process knows."""

    def __init__(self, redis: Redis, pool: str) -> None:
        self._redis = redis
        self._pool = pool
        #: None until Redis has said what other processes have found out.
        self._refused_until: float | None = None
        #: Whether the upstream has served a stream that had them.
        self.is_accepted = False

    def is_refused(self) -> bool:
        """Asks Redis once per process."""
        if self._refused_until is None:
            try:
                seconds = max(0, int(self._redis.ttl(keys.stream_options_refused(self._pool))))
            except RedisError:
                return False
            self._refused_until = time.monotonic() + seconds if seconds else 0.0
        return time.monotonic() < self._refused_until

    def may_cause(self, status: int, error_body: bytes) -> bool:
        """Whether an error may be about the `stream_options` that the farm has added."""
        if status in UNRELATED_STATUSES:
            return False
        return bool(NAMES.search(error_body)) or (status in BAD_REQUEST_STATUSES and not self.is_accepted)

    def record_refusal(self) -> None:
        """Remembers that a request was served only without them; Redis is told without waiting for it."""
        self._refused_until = time.monotonic() + REMEMBERED_SECONDS
        self.is_accepted = False
        message = "the upstream of pool %s refuses stream_options: tokens are counted here"
        log.warning(message, self._pool, extra={"action": "stream_options_refused"})
        gevent.spawn(self._store_refusal)

    def _store_refusal(self) -> None:
        try:
            self._redis.set(keys.stream_options_refused(self._pool), 1, ex=REMEMBERED_SECONDS)
        except RedisError as error:
            log.warning("Redis is lost: %s", error, extra={"action": "redis_lost", "reason": "stream_options"})


def drop_usage_request(body: bytes) -> bytes:
    """The body without what the front has added to ask for the usage; no other byte changes."""
    if body.endswith(ADDED):
        return body.removesuffix(ADDED) + b"}"
    options = parse_json_object(body).get("stream_options")
    if not isinstance(options, dict):
        return body
    rest = {name: value for name, value in options.items() if name != "include_usage"}
    return replace_member(body, "stream_options", rest) if rest else remove_member(body, "stream_options")
