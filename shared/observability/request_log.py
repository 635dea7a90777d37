"""The request log: an entry for each request that has ended, in a Redis stream; it holds no prompt and no answer.

Who ends a request writes its entry: the worker in the script that ends the job, the front for what no worker saw.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from redis import Redis

from shared import keys, names
from shared.protocol.messages import RelayRequest
from shared.redis_connection.client import register_script

#: Milliseconds that it is known that a batch was written.
BATCH_MARK_TTL_MS = 600_000
#: The one field of an entry in the stream.
ENTRY_FIELD = "e"
#: Entries read from Redis at a time.
PAGE_SIZE = 1000
#: Characters of a model's name that are kept.
MAX_MODEL_NAME_LENGTH = 200


@dataclass(frozen=True)
class LogEntry:
    """One request that has ended. Times are milliseconds."""

    #: Request id, as the caller has it.
    request: str
    #: Id of the API key.
    key: str
    pool: str = ""
    #: As the caller named it.
    model: str = ""
    #: Path below /v1.
    endpoint: str = ""
    band: str = "interactive"
    stream: int = 0
    #: HTTP status that the caller got, or would have got when the head had gone out already.
    status: int = 0
    attempts: int = 0
    #: The credential of the last attempt.
    credential: str = ""
    #: Waited in the queue until the last attempt; until the first byte; until the end. After admission.
    queue_ms: int = 0
    first_ms: int = 0
    total_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: 1 when the upstream reported no tokens, so that they were counted here.
    estimated: int = 0
    #: Code of the error, '' when there was none.
    code: str = ""
    #: How the answer ended: `done`, `client_gone`, `upstream_eof`, …; '' when there was none.
    end: str = ""

    def encode(self) -> str:
        """A JSON array of the fields in their order: roll_up.lua reads them by their places, so new ones go last."""
        return json.dumps(list({**vars(self), "model": make_printable(self.model)}.values()))

    @classmethod
    def decode(cls, encoded: bytes) -> "LogEntry":
        """From JSON; of a field that an older farm did not write the default."""
        return cls(*json.loads(encoded))


@dataclass(frozen=True)
class StoredEntry:
    """An entry with its id, which orders all of them, and when it was written, in seconds since the epoch."""

    id: str
    time: float
    entry: LogEntry

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"id": self.id, "time": self.time, **vars(self.entry)}


def build_entry(request: RelayRequest, **facts: Any) -> LogEntry:
    """The entry of a relay request, with what became of it."""
    return LogEntry(
        request=request.id,
        key=request.key,
        pool=names.configured_pool(request.pool),
        model=request.model,
        endpoint=request.path.partition("?")[0],
        band=request.band,
        stream=int(request.stream),
        **facts,
    )


#: The columns of an exported log.
COLUMNS = ("id", "time", *(one.name for one in fields(LogEntry)))


@dataclass(frozen=True)
class LogFilter:
    """Which entries are wanted; '' for any. Times are seconds since the epoch."""

    since: float = 0.0
    until: float = float("inf")
    request: str = ""
    key: str = ""
    pool: str = ""
    model: str = ""
    credential: str = ""
    endpoint: str = ""
    code: str = ""
    #: `ok` for statuses below 400 of answers that are whole, `failed` for the others.
    outcome: str = ""

    def matches(self, entry: LogEntry) -> bool:
        """Whether the entry is wanted, its time apart."""
        asked = ("request", "key", "pool", "model", "credential", "endpoint", "code")
        if any(getattr(self, name) not in ("", getattr(entry, name)) for name in asked):
            return False
        failed = entry.status >= 400 or bool(entry.code)
        return self.outcome == "" or failed == (self.outcome == "failed")


class RequestLog:
    """Writes and reads the log."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._write = register_script(redis, Path(__file__).with_name("write_log.lua"))

    def write(self, entries: Sequence[LogEntry], batch: str = "") -> None:
        """Appends entries; a batch of the same name is written once, however often it is sent."""
        names = [keys.REQUEST_LOG, keys.log_batch_mark(batch or secrets.token_hex(8))]
        self._write(keys=names, args=[BATCH_MARK_TTL_MS, *(entry.encode() for entry in entries)])

    def read_newest_first(self, wanted: LogFilter, before: str = "") -> Iterator[StoredEntry]:
        """The entries that are wanted, those before an id if one is given, read as they are needed."""
        top = f"({before}" if before else stream_bound(wanted.until, "+")
        bottom = stream_bound(wanted.since, "-")
        while True:
            page = self._redis.xrevrange(keys.REQUEST_LOG, top, bottom, count=PAGE_SIZE)
            for id_, values in page:
                entry = LogEntry.decode(values[ENTRY_FIELD.encode()])
                if wanted.matches(entry):
                    yield StoredEntry(id_.decode(), int(id_.partition(b"-")[0]) / 1000, entry)
            if len(page) < PAGE_SIZE:
                return
            top = f"({page[-1][0].decode()}"


def make_printable(name: str) -> str:
    """A name that a caller made up, short and printable."""
    return "".join(sign if sign.isprintable() else "?" for sign in name[:MAX_MODEL_NAME_LENGTH])


def stream_bound(seconds: float, beyond: str) -> str:
    """A time as a bound of stream ids."""
    if seconds in (0.0, float("inf")):
        return beyond
    return str(int(seconds * 1000))
