"""A run that callers of other fronts follow: its frames, sealed, in a list in Redis for each name that it was found by.

1. A front that wants to follow asks by pub/sub, and again each second, which keeps the export alive and repairs lost
   messages.
2. The front of the run appends the frames from the beginning, and wakes those that follow.
3. They read the list from where they are.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import gevent
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from gevent.event import Event
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.parsing import parse_json_object
from shared.protocol.messages import Failure, Frame, FrameKind, decode_frames
from shared.redis_connection.auto_pipeline import AutoPipeline
from web.replay.answers.sealed_answer import NONCE_BYTES
from web.replay.shared_run import SharedRun

log = logging.getLogger("farm.web")
#: Seconds between two looks of a follower whom no message has woken, and without which an export ends: a busy front
#: may be late.
POLL_SECONDS, MAX_SILENCE_SECONDS = 1.0, 20.0
#: Seconds that an export lives when its front has died.
EXPORT_TTL_SECONDS = 60
#: Bytes of an entry, unless one frame has more; entries per read; and bytes of an export.
ENTRY_BYTES, ENTRIES_PER_READ = 131_072, 8
MAX_EXPORT_BYTES = 32 * 1024 * 1024
#: Bytes that identify an export: one that begins anew may be cut into other entries.
ID_BYTES = 8
TOO_LARGE = Failure(502, "answer_too_large", "the answer is too large to be shared between fronts", "server_error")


class RunExport:
    """One run for other fronts; follows it as a caller does."""

    def __init__(self, run: SharedRun, name: str, key: bytes, append: Callable[[int, bytes, list[str]], None]) -> None:
        """`name` and `key` are those of one of its shares: who found the run by that name knows no other key.

        `append` stores an entry, b'' for none, under its number and wakes these fronts. It may raise RedisError."""
        self.unread_bytes = 0
        self._run = run
        self._name = name
        self._cipher = AESGCM(key)
        self._id = os.urandom(ID_BYTES)
        self._append = append
        self._frames: list[Frame] = []
        self._number = self._bytes = 0
        #: Front -> when it last asked, by the monotonic clock.
        self._asked_at: dict[str, float] = {}
        self._woken = Event()
        run.add(self)
        run.begin_export()

    def ask(self, front: str) -> None:
        """The front follows, or still does."""
        self._asked_at[front] = time.monotonic()
        self._woken.set()

    def leave(self, front: str) -> None:
        self._asked_at.pop(front, None)
        self._woken.set()

    def put(self, frames: Sequence[Frame]) -> None:
        self._frames += frames
        self.unread_bytes += sum(len(frame.payload) for frame in frames)
        self._woken.set()

    def run(self) -> None:
        """Exports until the answer has ended, or nobody follows any more."""
        entry, has_ended = b"", False
        try:
            while not has_ended:
                self._woken.wait(POLL_SECONDS)
                self._woken.clear()
                self._asked_at = {
                    front: at for front, at in self._asked_at.items() if time.monotonic() - at < MAX_SILENCE_SECONDS
                }
                if not self._asked_at:
                    return
                for frames in self._take_batches():
                    entry = self._seal(frames)
                    self._store(entry)
                    has_ended = frames[-1].kind in (FrameKind.END, FrameKind.FAILURE)
                self._store(b"")
            self._run.whole_exports.add(self._name)
        finally:
            self._run.end_export()
            self._run.remove(self)

    def _take_batches(self) -> Iterator[list[Frame]]:
        frames, self._frames, self.unread_bytes = self._frames, [], 0
        self._run.note_read()
        batch, size = list[Frame](), 0
        for frame in frames:
            self._bytes += len(frame.payload)
            if self._bytes > MAX_EXPORT_BYTES:
                yield [*batch, Frame(FrameKind.FAILURE, 0, TOO_LARGE.encode())]
                return
            batch.append(frame)
            size += len(frame.payload)
            if size >= ENTRY_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _seal(self, frames: list[Frame]) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        data = b"".join(frame.encode() for frame in frames)
        return (
            self._id
            + nonce
            + self._cipher.encrypt(nonce, data, name_entry(self._run.id, self._name, self._id, self._number))
        )

    def _store(self, entry: bytes) -> None:
        began_at = time.monotonic()
        while True:
            try:
                self._append(self._number, entry, list(self._asked_at))
                break
            except RedisError:
                gevent.sleep(POLL_SECONDS)
        self._number += bool(entry)
        # While Redis was away nobody could ask.
        away_seconds = time.monotonic() - began_at
        self._asked_at = {front: at + away_seconds for front, at in self._asked_at.items()}


class ExportReader:
    """Reads the export of one run, found by this name."""

    def __init__(self, run_id: str, name: str, key: bytes, pipeline: AutoPipeline) -> None:
        self.run_id = run_id
        self.name = name
        #: Set when there may be more.
        self.woken = Event()
        self._cipher = AESGCM(key)
        self._pipeline = pipeline
        self._position = 0
        self._id = b""

    def read(self) -> list[Frame]:
        """The next frames, none if there are none yet. Raises RedisError, or ValueError when the export was lost."""
        last = self._position + ENTRIES_PER_READ - 1
        entries = self._pipeline.execute("LRANGE", keys.run_export(self.run_id, self.name), self._position, last)
        return [frame for entry in entries for frame in self._open(entry)]

    def wait(self) -> None:
        """Waits until there may be more, or somebody has woken the reader, for POLL_SECONDS at most."""
        self.woken.wait(POLL_SECONDS)
        self.woken.clear()

    def _open(self, entry: bytes) -> list[Frame]:
        id_, nonce, sealed = entry[:ID_BYTES], entry[ID_BYTES:][:NONCE_BYTES], entry[ID_BYTES + NONCE_BYTES :]
        if self._id not in (b"", id_):
            raise ValueError("the export has begun anew")
        self._id = id_
        try:
            data = self._cipher.decrypt(nonce, sealed, name_entry(self.run_id, self.name, id_, self._position))
        except (InvalidTag, ValueError):
            raise ValueError("an entry of an export can't be unsealed") from None
        self._position += 1
        return list(decode_frames(data))


def name_entry(run_id: str, name: str, export_id: bytes, number: int) -> bytes:
    """What an entry is sealed with."""
    return f"{run_id} {name} {number} ".encode() + export_id


class ExportedRuns(Protocol):
    """The runs of this front."""

    def find_by_id(self, run_id: str) -> SharedRun | None:
        """The run with that id, which has not ended, or not long ago."""

    def disclaim(self, run_id: str, name: str) -> None:
        """Called when another front takes that run, which it has found by this name, for one of this front."""


class RunExchange:
    """The exports of this front, and its way to those of others."""

    def __init__(self, redis: Redis, front_id: str, runs: ExportedRuns) -> None:
        self._front_id = front_id
        self._runs = runs
        self._pipeline = AutoPipeline(redis)
        self._append = self._pipeline.register_script(Path(__file__).with_name("export_frames.lua"))
        #: Run and name -> its export.
        self._exports: dict[tuple[str, str], RunExport] = {}
        #: Run of another front, and name -> who reads it here: one for each band.
        self._readers: dict[tuple[str, str], list[ExportReader]] = {}

    def open_reader(self, run_id: str, name: str, key: bytes) -> ExportReader:
        reader = ExportReader(run_id, name, key, self._pipeline)
        self._readers.setdefault((run_id, name), []).append(reader)
        return reader

    def close_reader(self, reader: ExportReader, front: str) -> None:
        """Tells the other front if nobody here follows any more."""
        readers = self._readers[reader.run_id, reader.name]
        readers.remove(reader)
        if readers:
            return
        del self._readers[reader.run_id, reader.name]
        try:
            self._send(front, "leave", reader.run_id, reader.name)
        except RedisError as error:
            log.warning("can't leave a run: %s", error, extra={"action": "redis_lost"})

    def ask(self, run_id: str, front: str, name: str) -> None:
        """Asks another front for its run, found under this name. Raises RedisError."""
        self._send(front, "export", run_id, name)

    def _send(self, front: str, kind: str, run_id: str, name: str) -> None:
        self._pipeline.execute("PUBLISH", keys.front_channel(front), encode_message(kind, run_id, self._front_id, name))

    def receive(self, data: bytes) -> None:
        """Takes in a message of another front."""
        message = parse_json_object(data)
        kind, run_id, front, name = (str(message.get(field, "")) for field in ("kind", "run", "front", "name"))
        if kind == "more":
            for reader in self._readers.get((run_id, name), ()):
                reader.woken.set()
        elif kind == "leave" and (run_id, name) in self._exports:
            self._exports[run_id, name].leave(front)
        elif kind == "export":
            self._export(run_id, front, name)

    def _export(self, run_id: str, front: str, name: str) -> None:
        export = self._exports.get((run_id, name))
        if export is None:
            run = self._runs.find_by_id(run_id)
            if run is None:
                self._runs.disclaim(run_id, name)
                return
            if not run.opened.is_set():
                gevent.spawn(self._export_once_open, run, front, name)
                return
            key = next((share.key for share in run.shares if share.name == name), None)
            # All of it is in Redis already: who has asked reads on by itself.
            is_exported = name in run.whole_exports
            if key is None or is_exported or not run.can_be_joined:
                return
            export = RunExport(run, name, key, lambda *entry: self._store(run_id, name, *entry))
            self._exports[run_id, name] = export
            gevent.spawn(self._run, run_id, name, export)
        export.ask(front)

    def _export_once_open(self, run: SharedRun, front: str, name: str) -> None:
        """The front asks again only after a second, when a short run is over."""
        run.opened.wait()
        self._export(run.id, front, name)

    def _run(self, run_id: str, name: str, export: RunExport) -> None:
        try:
            export.run()
        finally:
            del self._exports[run_id, name]

    def _store(self, run_id: str, name: str, number: int, entry: bytes, fronts: list[str]) -> None:
        message = encode_message("more", run_id, self._front_id, name) if entry else ""
        channels = [keys.front_channel(front) for front in fronts] if entry else []
        args: list[Any] = [number, entry, 1000 * EXPORT_TTL_SECONDS, message, *channels]
        self._append(keys=[keys.run_export(run_id, name)], args=args)


def encode_message(kind: str, run_id: str, front: str, name: str) -> str:
    """A message on the channel of a front."""
    return json.dumps({"kind": kind, "run": run_id, "front": front, "name": name})
