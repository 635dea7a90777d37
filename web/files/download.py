"""Sends the content of a file in pieces, whole or a range of it (RFC 9110 section 14)."""

import errno
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from flask import Request, Response

from shared.errors import ApiError
from shared.files.file_record import FileRecord
from shared.files.file_store import Files
from shared.files.part_store import FileStoreDown, PartNotFound
from web.server import disconnect

log = logging.getLogger("farm.web")


def send_content(request: Request, files: Files, record: FileRecord) -> Response:
    """Raises ApiError 416, and 500 when bytes are lost; FileStoreDown."""
    etag = f'"{record.id}"'
    start, end, status = find_range(request, record.size, etag)
    headers = {
        "content-type": "application/octet-stream",
        "content-length": str(end - start),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(record.filename, safe='')}",
        "accept-ranges": "bytes",
        "etag": etag,
    }
    if status == 206:
        headers["content-range"] = f"bytes {start}-{end - 1}/{record.size}"
    if request.method == "HEAD":
        return Response(status=status, headers=headers)
    pieces = files.open(record, start, end)
    try:
        # Before the status is sent, so that a store that is away is an error.
        first = next(pieces, b"")
    except PartNotFound:
        message = "the content of this file is missing in the farm's store of files"
        raise ApiError(500, "file_content_missing", message, "server_error") from None
    body = iter_content(record, first, pieces, request.environ.get("gunicorn.socket"))
    return Response(body, status, headers, direct_passthrough=True)


def find_range(request: Request, size: int, etag: str) -> tuple[int, int, int]:
    """The first byte, the end, and the status. Raises ApiError 416.

    Who asks for several ranges, or for one of another file (If-Range), gets the whole.
    """
    wanted = request.range
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return 0, size, 200
    if request.headers.get("if-range", etag) != etag:
        return 0, size, 200
    found = wanted.range_for_length(size)
    if found is None:
        headers = {"content-range": f"bytes */{size}"}
        raise ApiError(416, "range_not_satisfiable", f"the file has {size} bytes", headers=headers)
    return (*found, 206)


def iter_content(record: FileRecord, first: bytes, rest: Iterator[bytes], caller_socket: Any) -> Iterator[bytes]:
    """Resets the connection when the store fails, so that the file can't look complete."""
    try:
        yield first
        yield from rest
    except (FileStoreDown, PartNotFound) as error:
        log.error("a download of %s broke off: %s", record.id, error, extra={"action": "file_store_failed"})
        disconnect.reset_on_close(caller_socket)
        raise ConnectionResetError(errno.ECONNRESET, "the file is incomplete") from None
