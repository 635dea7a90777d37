"""The tape: what each credential's worker did, second by second, over the last two minutes.

Each worker process appends a column a second to a stream of its own: one letter for each credential that it holds.
A column names the credentials when they have changed, and now and then, because the oldest columns are trimmed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from redis import Redis

from shared import clock, keys

#: What a worker does -> its letter.
LETTERS = {
    "busy": "b",
    "idle": "i",
    "idle_waiting": "w",
    "resting": "c",
    "refreshing": "r",
    "upstream_down": "o",
    "suspended": "s",
    "draining": "d",
}
#: Letter of a second in which the credential had no worker.
ABSENT = "-"
#: Seconds that can be read; columns that are kept beyond them; columns between two that name the credentials.
TAPE_SECONDS, SPARE_COLUMNS, NAMING_INTERVAL = 120, 15, 10
#: Longest time in seconds without a column that counts as lateness of a process; else it was not there.
MAX_GAP_SECONDS = 3
#: Seconds for which the tape of a process that has ended, or was killed, is kept and read.
TAPE_TTL_SECONDS = TAPE_SECONDS + 30


class TapeWriter:
    """Appends the columns of one worker process."""

    def __init__(self, process_id: str) -> None:
        self._process_id, self._key = process_id, keys.tape(process_id)
        self._named: tuple[str, ...] = ()
        self._columns = 0

    def append(self, pipe: Any, letters: dict[str, str]) -> None:
        """Adds the column of now, credential id -> letter, to a pipeline."""
        ids = tuple(letters)
        fields = {"c": "".join(letters.values())}
        is_naming = ids != self._named or self._columns % NAMING_INTERVAL == 0
        if is_naming:
            fields["k"] = " ".join(ids)
        self._named, self._columns = ids, self._columns + 1
        pipe.xadd(self._key, fields, maxlen=TAPE_SECONDS + SPARE_COLUMNS, approximate=False)
        if is_naming:
            now = clock.now()
            pipe.expire(self._key, TAPE_TTL_SECONDS)
            pipe.zadd(keys.TAPES, {self._process_id: now})
            pipe.zremrangebyscore(keys.TAPES, "-inf", now - TAPE_TTL_SECONDS)


@dataclass(frozen=True)
class Tape:
    """What the credentials' workers did in each of some successive seconds."""

    #: The first of these seconds, since the epoch.
    begins_at: int
    seconds: int
    #: Credential id -> a letter for each second.
    letters: dict[str, str]


def read_tape(redis: Redis, seconds: int = TAPE_SECONDS, until: float | None = None) -> Tape:
    """The last `seconds` that are over, of all worker processes that ran in them."""
    end = int(clock.now() if until is None else until)
    begin = end - seconds
    # The newest last: what it says of a second goes before what the process says that it replaces.
    processes = redis.zrange(keys.TAPES, 0, -1)
    first = (begin - NAMING_INTERVAL - 2) * 1000
    with redis.pipeline(transaction=False) as pipe:
        for process in processes:
            pipe.xrange(keys.tape(process.decode()), first, end * 1000 - 1)
        columns = pipe.execute()
    rows: dict[str, list[str]] = {}
    for stream in columns:
        _add_rows(rows, _read_columns(stream, begin, seconds))
    return Tape(begin, seconds, {credential_id: "".join(row) for credential_id, row in rows.items()})


def _read_columns(
    stream: Iterable[tuple[bytes, dict[bytes, bytes]]], begin: int, seconds: int
) -> list[tuple[Sequence[str], str]]:
    """For each second the credentials of one process, and a letter for each; none in a second without a column.

    A second without a column, because the process was late, is like the one after it.
    """
    columns: list[tuple[Sequence[str], str]] = [((), "")] * seconds
    ids: Sequence[str] | None = None
    named, previous = b"", begin - 1
    for entry_id, fields in stream:
        if fields.get(b"k", named) != named:
            named = fields[b"k"]
            ids = named.decode().split()
        second = int(entry_id.partition(b"-")[0]) // 1000
        if ids is None or second < begin:
            continue
        first = second if second - previous > MAX_GAP_SECONDS else previous + 1
        column = ids, fields.get(b"c", b"").decode().ljust(len(ids), ABSENT)
        for at in range(min(first, second), second + 1):
            columns[at - begin] = column
        previous = second
    return columns


def _add_rows(rows: dict[str, list[str]], columns: Sequence[tuple[Sequence[str], str]]) -> None:
    """Adds the columns to the credentials' rows: at once all successive ones that are of the same credentials."""
    at = 0
    for ids, successive in groupby(columns, key=itemgetter(0)):
        letters = [column for _, column in successive]
        for credential_id, run in zip(ids, zip(*letters, strict=False), strict=False):
            rows.setdefault(credential_id, [ABSENT] * len(columns))[at : at + len(run)] = run
        at += len(letters)
