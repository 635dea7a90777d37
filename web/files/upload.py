"""Takes an upload: writes its file into the store as it arrives, and makes it a file once all of the form is there."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gevent
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from shared.api_keys.api_key import ApiKey
from shared.files.file_record import BATCH, FileRecord
from shared.files.file_store import Files, TooManyFiles
from shared.files.file_writer import FileWriter
from shared.files.part_store import PART_BYTES
from shared.parsing import parse_whole_number
from shared.redis_connection.retry import retry_for
from web.files.errors import (
    expiry_error,
    file_too_large_error,
    invalid_form_error,
    missing_field_error,
    purpose_error,
    quota_error,
)
from web.files.form_stream import FieldValue, FileStart, FormEvent, parse_form
from web.replay.creation_request import CreationRequest
from web.replay.identity import digest
from web.request.body_memory import Reservation
from web.request.body_reader import incomplete_body_error
from web.request.multipart import InvalidForm, is_form
from web.server.request_input import MAX_FORM_BYTES, PIECE_BYTES

FILE, PURPOSE, ANCHOR, SECONDS = "file", "purpose", "expires_after[anchor]", "expires_after[seconds]"
#: Bounds of the seconds for which a caller may ask to keep a file (OpenAI: an hour to 30 days), and their start.
MIN_TTL_SECONDS, MAX_TTL_SECONDS, CREATED_AT = 3600, 2_592_000, "created_at"
MAX_FILENAME_LENGTH = 255
#: Bytes of memory for an upload: a part, and its pieces.
UPLOAD_MEMORY_BYTES = 2 * PART_BYTES


@dataclass
class Form:
    """What has been read of the form, except the content of its file."""

    filename: str | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def add(self, event: FieldValue | FileStart) -> None:
        """Raises ApiError 400 as soon as something is wrong: the file that follows may be large."""
        if isinstance(event, FieldValue):
            self.fields[event.name] = event.value
            self.check_purpose()
        elif event.name == FILE and self.filename is None:
            self.filename = clean_filename(event.filename)
        elif event.name == FILE:
            raise invalid_form_error("it has several files")
        else:
            raise invalid_form_error(f"{event.name!r} is a file")

    def check_purpose(self) -> None:
        purpose = self.fields.get(PURPOSE)
        if purpose is not None and purpose != BATCH:
            raise purpose_error(purpose)

    def check_complete(self) -> str:
        """The name of the file. Raises ApiError 400."""
        if self.filename is None:
            raise missing_field_error(FILE)
        if PURPOSE not in self.fields:
            raise missing_field_error(PURPOSE)
        return self.filename

    def parse_ttl(self) -> int | None:
        """Seconds for which the file is to be kept, None for the farm's. Raises ApiError 400."""
        anchor, seconds = self.fields.get(ANCHOR), self.fields.get(SECONDS)
        if anchor is None and seconds is None:
            return None
        if anchor != CREATED_AT:
            raise expiry_error(ANCHOR, f"must be '{CREATED_AT}'")
        ttl = parse_whole_number(seconds or "", MIN_TTL_SECONDS, MAX_TTL_SECONDS)
        if ttl is None:
            raise expiry_error(SECONDS, f"must be a whole number from {MIN_TTL_SECONDS} to {MAX_TTL_SECONDS}")
        return ttl


class Content:
    """The content of an upload: its size, its hash, and the writer that stores it; none if it is stored already."""

    def __init__(self, writer: FileWriter | None, max_bytes: int) -> None:
        self._writer = writer
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Raises RequestEntityTooLarge, FileStoreDown, FileStoreFull."""
        self._size += len(data)
        if self._size > self._max_bytes:
            raise RequestEntityTooLarge
        self._hash.update(data)
        if self._writer:
            self._writer.write(data)

    @property
    def digest(self) -> bytes:
        return self._hash.digest()


def take_upload(
    request: Request,
    files: Files,
    key: ApiKey,
    reservation: Reservation,
    max_bytes: int,
    creation: CreationRequest,
) -> dict[str, Any]:
    """Returns the file object. Raises ApiError, FileStoreDown, RedisError; nothing is kept then.

    A retry of an upload that has succeeded is read, to know it by its content, but not stored.
    """
    length = request.content_length
    if not is_form(request.content_type or ""):
        raise invalid_form_error("send it as multipart/form-data", status=415)
    try:
        if length is not None and length > max_bytes + MAX_FORM_BYTES:
            raise RequestEntityTooLarge
        if not creation.kept:
            retry_for(lambda: files.check_room(key.id, max(0, (length or 0) - MAX_FORM_BYTES)))
        with files.create() as writer:
            content = Content(None if creation.kept else writer, max_bytes)
            form = read_form(parse_form(iter_body(request, reservation), request.content_type or ""), content)
            return create_file(form, content, creation, partial(files.commit, writer, key.id))
    except RequestEntityTooLarge:
        raise file_too_large_error(max_bytes) from None
    except InvalidForm as error:
        raise invalid_form_error(str(error)) from None
    except TooManyFiles as error:
        raise quota_error(error) from None


def create_file(
    form: Form, content: Content, creation: CreationRequest, commit: Callable[..., FileRecord]
) -> dict[str, Any]:
    """Makes a file of an upload that has been read, unless its first request has."""
    filename, ttl = form.check_complete(), form.parse_ttl()
    fingerprint = digest(b"/files", BATCH.encode(), filename.encode(), str(ttl).encode(), content.digest)
    return creation.create(fingerprint, lambda once: retry_for(partial(commit, filename, BATCH, ttl, once)).describe())


def read_form(events: Iterator[FormEvent], content: Content) -> Form:
    form = Form()
    for event in events:
        if isinstance(event, FieldValue | FileStart):
            form.add(event)
        else:
            content.write(event.data)
    return form


def iter_body(request: Request, reservation: Reservation) -> Iterator[bytes]:
    """Reads the body. Memory is reserved once its sender has shown that it sends. Raises ApiError 400, 408, 429."""
    stream, length, received = request.environ["wsgi.input"], request.content_length, 0
    try:
        while data := stream.read(PIECE_BYTES if length is None else min(PIECE_BYTES, length - received)):
            if not received:
                reservation.reserve(min(UPLOAD_MEMORY_BYTES, length or UPLOAD_MEMORY_BYTES))
            received += len(data)
            yield data
            # A fast sender must not keep the event loop to itself.
            gevent.sleep(0)
    except OSError:
        raise incomplete_body_error() from None
    if length is not None and received < length:
        raise incomplete_body_error()


def clean_filename(name: str) -> str:
    """The last segment of the path, printable: old browsers and programs send whole paths."""
    printable = "".join(character for character in name if character.isprintable())
    return printable.replace("\\", "/").rpartition("/")[2][:MAX_FILENAME_LENGTH] or "file"
