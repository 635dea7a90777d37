"""The farm's time line: what happened to accounts, upstreams, processes and Redis, and what operators changed.

Workers' events are those log records whose action is in EVENTS, whatever FARM_LOG_LEVEL says. They reach Redis within
about a second; a process that is killed loses what it has not written yet.
"""

import json
import logging
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis

from shared import clock, keys
from shared.observability.stream_batches import StreamBatches
from shared.parsing import parse_json_object, read_number

#: Action of a log record -> what it tells.
EVENTS: Mapping[str, str] = {
    "credential_active": "an account is back in service",
    "credential_cooling": "an account rests",
    "credential_disabled": "an account was disabled",
    "credential_dead": "an account's token was refused for good",
    "credential_foreign": "accounts belong to another token endpoint than their pool's",
    "token_in_doubt": "a token may have been rotated without the farm learning of the new one",
    "signed_in": "an account was added by signing in",
    "breaker_opened": "an upstream is down: its pool takes no request",
    "breaker_probed": "an upstream was tried again, and is still down",
    "breaker_closed": "an upstream is back",
    "token_breaker_opened": "a token endpoint fails for several accounts, or an upstream refuses their API keys",
    "token_breaker_closed": "a token endpoint grants tokens again, or an upstream accepts API keys",
    "collision": "two requests met on one account",
    "lease_lost": "a worker process lost an account to another one",
    "process_started": "a worker process has started",
    "process_stopped": "a worker process has ended",
    "process_buried": "a worker process has died, and another one has its accounts",
    "refresher_down": "the token refresher does not answer",
    "refresher_back": "the token refresher answers again",
    "front_lost": "a front has died",
    "orphan_found": "a request's worker has died",
    "redis_failover": "another Redis server has become the primary",
    "registered_again": "Redis has lost data, and the workers have registered again",
    "batch_completed": "a batch has ended, and its results are there",
    "batch_failed": "the input of a batch is invalid, or was deleted",
    "batch_expired": "a batch has ended because its time was over; what was done is there",
    "batch_cancelled": "a batch was cancelled; what was done is there",
    "alert_raised": "receivers of alerts are told that something is wrong",
    "alert_over": "receivers of alerts are told that it is over",
    "alert_undelivered": "a receiver of alerts can't be told, and is tried again",
    "alert_receiver_back": "a receiver of alerts has been told what it had missed",
    "operator": "an operator has changed something",
}
#: Approximate number of events kept; those of one process that wait for Redis, the latest.
MAX_EVENTS, MAX_BUFFERED = 10_000, 1000
PAGE_SIZE = 500
#: Seconds by which an event may be written late, because Redis was away.
LATENESS_SECONDS = 600
#: Seconds by which an event may seem to be written before it has happened.
CLOCK_TOLERANCE_SECONDS = 60
#: Characters of a text.
MAX_TEXT_LENGTH = 300
#: Attributes of a log record that an event keeps.
RECORD_FIELDS = (
    *("pool", "credential_id", "reason", "evidence", "until", "request_id", "worker_process", "faults"),
    "credentials",
)
#: Accounts of a dead worker process that its event names, so that each finds it among its own.
MAX_CREDENTIALS = 2000
#: Texts of a stored event that Event calls the same.
TEXT_FIELDS = ("kind", "pool", "reason", "evidence", "worker_process", "message", "who", "target")


@dataclass(frozen=True)
class EventFault:
    """One of the attempts that have opened a circuit breaker."""

    time: float
    credential: str
    request: str
    reason: str


@dataclass(frozen=True)
class Event:
    """One event. Times are seconds since the epoch."""

    #: Its place in the stream.
    id: str
    time: float
    #: One of EVENTS, or of a newer version.
    kind: str
    pool: str = ""
    credential: str = ""
    #: Why: the reason of a state, the action of an operator.
    reason: str = ""
    #: The upstream's or token endpoint's response behind a state, e.g. `upstream 429 rate_limited`.
    evidence: str = ""
    #: Until when the account rests; 0 if that isn't known.
    until: float = 0.0
    request: str = ""
    worker_process: str = ""
    #: In words, as in the log.
    message: str = ""
    #: Who did it, and to what, when it was an operator.
    who: str = ""
    target: str = ""
    #: What has opened a breaker, the oldest first.
    faults: tuple[EventFault, ...] = ()
    #: The accounts of a worker process that has died.
    credentials: tuple[str, ...] = ()


@dataclass(frozen=True)
class EventFilter:
    """Filter for events; '' matches any. Times are in seconds since the epoch."""

    since: float = 0.0
    until: float = float("inf")
    kind: str = ""
    pool: str = ""
    credential: str = ""

    @property
    def lower_bound(self) -> str:
        """The least id of a matching event: it has the time of writing, which is later, but for clocks that differ."""
        return str(max(0, int(1000 * (self.since - CLOCK_TOLERANCE_SECONDS)))) if self.since else "-"

    @property
    def upper_bound(self) -> str:
        return "+" if self.until == float("inf") else str(max(0, int(1000 * (self.until + LATENESS_SECONDS))))

    @property
    def encoded_values(self) -> list[bytes]:
        """Parts of each matching event as it is stored."""
        return [json.dumps(value).encode() for value in (self.kind, self.pool, self.credential) if value]

    def matches(self, event: Event) -> bool:
        wanted = ((self.kind, event.kind), (self.pool, event.pool))
        concerned = ("", event.credential, *event.credentials, *(fault.credential for fault in event.faults))
        is_wanted = all(want in ("", value) for want, value in wanted) and self.credential in concerned
        return is_wanted and self.since <= event.time < self.until


class EventBuffer(logging.Handler):
    """Collects the events of a worker process, and writes them."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(logging.INFO)
        self._redis = redis
        self._batches = StreamBatches(redis, keys.EVENTS)
        self._events: deque[str] = deque(maxlen=MAX_BUFFERED)
        #: What may have reached Redis or not, because its reply was lost, and its mark.
        self._batch: tuple[str, list[str]] | None = None

    def start(self) -> None:
        """Begins to collect the events of this process, also those that the log's level leaves out."""
        farm = logging.getLogger("farm")
        farm.addHandler(self)
        if farm.getEffectiveLevel() > logging.INFO:
            farm.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        kind = getattr(record, "action", "")
        if kind in EVENTS:
            fields = {name: value for name in RECORD_FIELDS if (value := getattr(record, name, None))}
            if "credentials" in fields:
                fields["credentials"] = fields["credentials"][:MAX_CREDENTIALS]
            self._events.append(encode_event(kind, message=record.getMessage()[:MAX_TEXT_LENGTH], **fields))

    def write(self) -> None:
        """Writes what has been collected, each event once. Raises RedisError; the next call tries again."""
        while self._batch or self._events:
            if not self._batch:
                self._batch = (secrets.token_hex(8), list(self._events))
                self._events.clear()
            mark, events = self._batch
            self._batches.write(mark, ((event, 1) for event in events))
            self._batch = None
            self._redis.xtrim(keys.EVENTS, maxlen=MAX_EVENTS, approximate=True)


def encode_event(kind: str, **fields: Any) -> str:
    return json.dumps({"t": round(clock.now(), 3), "kind": kind, **fields}, default=str)


def record_operator_event(pipe: Any, actor: str, action: str, target: str) -> None:
    """Adds an operator's change to a pipeline."""
    event = encode_event("operator", reason=action, who=actor, target=target)
    pipe.xadd(keys.EVENTS, {"e": event}, maxlen=MAX_EVENTS, approximate=True)


def read_events(redis: Redis, event_filter: EventFilter, before: str = "") -> Iterator[Event]:
    """Yields matching events, or those before the id `before`, the newest first; skips what can't be read."""
    upper_bound = f"({before}" if before else event_filter.upper_bound
    lower_bound = event_filter.lower_bound
    wanted = event_filter.encoded_values
    while page := redis.xrevrange(keys.EVENTS, upper_bound, lower_bound, count=PAGE_SIZE):
        for id_, values in page:
            encoded = values.get(b"e", b"")
            # Decoding takes ten times as long.
            if all(value in encoded for value in wanted):
                event = decode_event(id_.decode(), encoded)
                if event_filter.matches(event):
                    yield event
        upper_bound = f"({page[-1][0].decode()}"


def decode_event(id_: str, encoded: bytes) -> Event:
    values = parse_json_object(encoded)
    sources = {name: name for name in TEXT_FIELDS} | {"credential": "credential_id", "request": "request_id"}
    texts = {name: str(values.get(source, "")) for name, source in sources.items()}
    at, until = read_number(values.get("t")), read_number(values.get("until"))
    stored = values.get("credentials")
    credentials = tuple(map(str, stored)) if isinstance(stored, list) else ()
    faults = decode_faults(values.get("faults"))
    return Event(id=id_, time=at, until=until, faults=faults, credentials=credentials, **texts)


def decode_faults(stored: Any) -> tuple[EventFault, ...]:
    faults = [fault for fault in stored if isinstance(fault, dict)] if isinstance(stored, list) else []
    return tuple(
        EventFault(
            time=read_number(fault.get("t")),
            credential=str(fault.get("credential_id", "")),
            request=str(fault.get("request_id", "")),
            reason=str(fault.get("reason", "")),
        )
        for fault in faults
    )


def read_event(redis: Redis, id_: str) -> Event | None:
    """The event with this id."""
    found = redis.xrange(keys.EVENTS, id_, id_)
    return decode_event(id_, found[0][1].get(b"e", b"")) if found else None


def read_events_after(redis: Redis, id_: str) -> Iterator[Event]:
    """Yields what came after an event, the oldest first."""
    while page := redis.xrange(keys.EVENTS, f"({id_}", "+", count=PAGE_SIZE):
        for next_id, values in page:
            yield decode_event(next_id.decode(), values.get(b"e", b""))
        id_ = page[-1][0].decode()
