"""Request log: one entry per finished request, without prompt or response, in a Redis stream.

A worker writes the entry in the script that finishes the job; the front writes it for requests that reached no worker.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

from redis import Redis

from shared import keys, names
from shared.decoding import UnreadableRecord, decode_positional, parse_values
from shared.observability.stream_batches import StreamBatches
from shared.protocol.messages import RelayRequest

#: Field of the stream entry that holds the encoded LogEntry.
ENTRY_FIELD = "e"
#: Field with the number of refused requests that the entry stands for; absent for one.
COUNT_FIELD = "n"
#: Entries per read from Redis; entries that a search looks at before it lets the reader decide whether to go on.
PAGE_SIZE, MAX_SCANNED = 1000, 10_000
#: Seconds by which an entry may be older than its request's id, as hosts' clocks differ, and younger than it.
CLOCK_MARGIN_SECONDS, MAX_REQUEST_SECONDS = 60.0, 86_400.0
#: Characters after which a model name is cut off.
MAX_MODEL_NAME_LENGTH = 200


@dataclass(frozen=True)
class LogEntry:
    """One finished request. Times are in milliseconds."""

    #: Request id, as returned to the caller.
    request: str
    #: Id of the API key.
    key: str
    pool: str = ""
    #: Model name as sent by the caller.
    model: str = ""
    #: Path below `/v1`.
    endpoint: str = ""
    band: str = "interactive"
    stream: int = 0
    #: HTTP status for the caller; for an error after the head was sent, the status it would have had.
    status: int = 0
    attempts: int = 0
    #: The credential of the last attempt.
    credential: str = ""
    #: Milliseconds from admission to the start of the last attempt, to the first byte, and to the end.
    queue_ms: int = 0
    first_ms: int = 0
    total_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: 1 if the upstream reported no token counts, so that the farm counted the tokens.
    estimated: int = 0
    #: Error code, '' for none.
    code: str = ""
    #: How the reply ended: `done`, `client_gone`, `upstream_eof`, …; '' if there was none.
    end: str = ""
    #: The attempts that have failed, as FailedAttempt.parse reads them; '' for none.
    tried: str = ""
    #: Whose requests were ahead at admission, as RequestsAhead.parse reads them; '' for none.
    ahead: str = ""

    def encode(self) -> str:
        """Encodes the fields as a JSON array. roll_up.lua reads them by position, so new fields go last.

        `tried` and `ahead` are left out when they are empty, `ahead` only if it is: version 0.1 reads no entry with a
        field that it does not know.
        """
        values = list({**vars(self), "model": sanitize_model_name(self.model)}.values())
        return json.dumps(values if self.ahead else values[:-1] if self.tried else values[:-2])

    @classmethod
    def decode(cls, encoded: bytes) -> "LogEntry":
        """Raises UnreadableRecord; fields that an older version did not write get their defaults."""
        return decode_positional(cls, parse_values(encoded))


@dataclass(frozen=True)
class FailedAttempt:
    """An attempt of a request that has failed."""

    credential: str
    #: As in `attempts_total`; '' if its worker has died.
    outcome: str = ""
    #: The upstream's HTTP status, 0 for no response.
    status: int = 0
    milliseconds: int = 0
    #: Milliseconds from the request's admission to its start; None if an older version has written it.
    started_ms: int | None = None

    @classmethod
    def parse(cls, tried: str) -> "tuple[FailedAttempt, ...]":
        """Attempts in the form `<credential>:<outcome>:<status>:<milliseconds>:<start>`, separated by spaces."""
        parts = (attempt.split(":") for attempt in tried.split())
        return tuple(cls(part[0], part[1], *map(int, part[2:])) for part in parts if len(part) in (4, 5))


@dataclass(frozen=True)
class RequestsAhead:
    """How many requests of an API key were ahead when a request was admitted."""

    #: '*' stands for all other keys.
    key: str
    requests: int

    @classmethod
    def parse(cls, ahead: str) -> "tuple[RequestsAhead, ...]":
        """Keys in the form `<key id>:<requests>`, separated by spaces, those with the most first."""
        parts = (each.rpartition(":") for each in ahead.split())
        return tuple(cls(key, int(count)) for key, _, count in parts if count.isdecimal())


class CountedEntry(NamedTuple):
    """An entry, and the number of refused requests that it stands for."""

    entry: LogEntry
    requests: int = 1


@dataclass(frozen=True)
class StoredEntry:
    """An entry with its stream id, which gives the order, and its time in seconds since the epoch."""

    id: str
    time: float
    entry: LogEntry
    #: Requests that it stands for: of a key that is refused many times a second, only the first have their own entry.
    count: int = 1

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "time": self.time, **vars(self.entry), "count": self.count}

    def to_json(self) -> dict[str, Any]:
        """With the failed attempts, and whose requests were ahead, as objects."""
        tried = [vars(attempt) for attempt in FailedAttempt.parse(self.entry.tried)]
        ahead = [vars(each) for each in RequestsAhead.parse(self.entry.ahead)]
        return {**self.to_dict(), "tried": tried, "ahead": ahead}


def build_entry(request: RelayRequest, **outcome: Any) -> LogEntry:
    """Builds the entry of a relay request; `outcome` holds the remaining fields."""
    return LogEntry(
        request=request.id,
        key=request.key,
        pool=names.configured_pool(request.pool),
        model=request.model,
        endpoint=request.path.partition("?")[0],
        band=request.band,
        stream=int(request.stream),
        **outcome,
    )


#: Columns of an export.
EXPORT_COLUMNS = ("id", "time", *(field.name for field in fields(LogEntry)), "count")


@dataclass(frozen=True)
class LogFilter:
    """Filter for entries; '' matches any value. Times are in seconds since the epoch."""

    since: float = 0.0
    until: float = float("inf")
    request: str = ""
    key: str = ""
    pool: str = ""
    model: str = ""
    credential: str = ""
    endpoint: str = ""
    code: str = ""
    #: `ok`: status below 400 and a complete reply; `failed`: anything else.
    outcome: str = ""

    def matches(self, entry: LogEntry) -> bool:
        """Ignores `since` and `until`, which bound the read itself."""
        if any(getattr(entry, name) != value for name, value in self._required):
            return False
        failed = entry.status >= 400 or bool(entry.code)
        return self.outcome == "" or failed == (self.outcome == "failed")

    @cached_property
    def _required(self) -> list[tuple[str, str]]:
        """Fields and their values."""
        return [(name, value) for name in FILTERED_FIELDS if (value := getattr(self, name))]

    def list_marks(self) -> tuple[bytes, ...]:
        """What an encoded entry has to contain to match: most needn't be decoded then."""
        return tuple(json.dumps(value).encode() for _, value in self._required)

    def find_bounds(self) -> tuple[float, float]:
        """The times between which entries are looked for. Ids of requests tell when they came."""
        came_at = names.find_request_time(self.request)
        if came_at is None:
            return self.since, self.until
        return max(self.since, came_at - CLOCK_MARGIN_SECONDS), min(self.until, came_at + MAX_REQUEST_SECONDS)


#: Fields by whose value entries are filtered.
FILTERED_FIELDS = ("request", "key", "pool", "model", "credential", "endpoint", "code")


@dataclass(frozen=True)
class FoundEntries:
    """Some of the entries that match, newest first."""

    entries: Sequence[StoredEntry]
    #: The id behind which the search goes on, '' at the end of the log.
    next: str = ""
    #: Whether it has stopped after as many entries as one search looks at.
    is_cut: bool = False


class RequestLog:
    """Writes and reads the request log."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._batches = StreamBatches(redis, keys.REQUEST_LOG)

    def write(self, entries: Sequence[LogEntry | CountedEntry], batch: str = "") -> None:
        """Appends entries. A batch name is written only once, so retries are idempotent."""
        counted = (entry if isinstance(entry, CountedEntry) else CountedEntry(entry) for entry in entries)
        self._batches.write(batch or secrets.token_hex(8), ((entry.encode(), count) for entry, count in counted))

    def read_newest_first(self, log_filter: LogFilter, before: str = "") -> Iterator[StoredEntry]:
        """Yields matching entries, or those older than the id `before`; skips unreadable ones."""
        return (found for _, found in self._scan(log_filter, before) if found)

    def search(self, log_filter: LogFilter, limit: int, before: str = "", scanned: int = MAX_SCANNED) -> FoundEntries:
        """Up to `limit` matching entries older than the id `before`, among the next `scanned` of the log.

        A request is looked for until it is found.
        """
        found, last = list[StoredEntry](), ""
        for number, (id_, entry) in enumerate(self._scan(log_filter, before), start=1):
            if number > scanned and not log_filter.request:
                return FoundEntries(found, last, is_cut=len(found) < limit)
            last = id_
            if entry and len(found) == limit:
                return FoundEntries(found, found[-1].id)
            if entry:
                found.append(entry)
            if found and log_filter.request:
                break
        return FoundEntries(found)

    def _scan(self, log_filter: LogFilter, before: str) -> Iterator[tuple[str, StoredEntry | None]]:
        """Yields the id of each entry, newest first, and the entry if it matches.

        A request whose id tells when it came is looked for from then on: most are found in the first page.
        """
        marks, is_forward = log_filter.list_marks(), names.find_request_time(log_filter.request) is not None
        since, until = log_filter.find_bounds()
        oldest, newest = stream_bound(since, "-"), f"({before}" if before else stream_bound(until, "+")
        while True:
            read, *bounds = (
                (self._redis.xrange, oldest, newest) if is_forward else (self._redis.xrevrange, newest, oldest)
            )
            page = read(keys.REQUEST_LOG, *bounds, count=PAGE_SIZE)
            for id_, values in page:
                encoded = values.get(ENTRY_FIELD.encode(), b"")
                may_match = all(mark in encoded for mark in marks)
                yield id_.decode(), decode_entry(id_, values, log_filter) if may_match else None
            if len(page) < PAGE_SIZE:
                return
            following = f"({page[-1][0].decode()}"
            oldest, newest = (following, newest) if is_forward else (oldest, following)


def decode_entry(id_: bytes, values: Mapping[bytes, bytes], log_filter: LogFilter) -> StoredEntry | None:
    """None for an entry that does not match, or can't be read."""
    try:
        entry = LogEntry.decode(values.get(ENTRY_FIELD.encode(), b""))
    except UnreadableRecord:
        return None
    if not log_filter.matches(entry):
        return None
    count = int(values.get(COUNT_FIELD.encode(), 1))
    return StoredEntry(id_.decode(), int(id_.partition(b"-")[0]) / 1000, entry, count)


def sanitize_model_name(name: str) -> str:
    """Shortens a caller's model name and replaces unprintable characters."""
    return "".join(char if char.isprintable() else "?" for char in name[:MAX_MODEL_NAME_LENGTH])


def stream_bound(seconds: float, open_end: str) -> str:
    """A stream id that bounds a range by time; `open_end` for 0 and infinity."""
    if seconds in (0.0, float("inf")):
        return open_end
    return str(int(seconds * 1000))
