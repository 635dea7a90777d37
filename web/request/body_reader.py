"""Reads the whole body of a relayed request, in bounded memory."""

from collections.abc import Iterator
from typing import cast

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from shared.errors import ApiError
from shared.protocol.large_body import MAX_PIECE_BYTES
from web.request.body_memory import UNRESERVED_BYTES, Reservation
from web.server.content_coding import bound_decoded_size, decode_body, parse_codings
from web.server.request_input import PIECE_BYTES


def read_whole(request: Request, reservation: Reservation) -> bytes:
    """Reads the whole body. Raises ApiError 400, 408, 415, 429, RequestEntityTooLarge (413).

    Flask would accept a truncated body, and would keep a copy of it. A compressed body is decoded once it is whole, so
    that no slow sender holds the memory for it.
    """
    codings = parse_codings(request.headers.get("content-encoding", ""), request.headers.get("transfer-encoding", ""))
    body = read_as_sent(request, reservation)
    if not codings or not body:
        return body
    limit = request.max_content_length or 0
    reservation.resize(bound_decoded_size(len(body), codings, limit))
    body = release_small(decode_body(body, codings, limit))
    reservation.resize(len(body))
    return body


def read_as_sent(request: Request, reservation: Reservation) -> bytes:
    """Reads the body, decoding nothing."""
    length, limit = request.content_length, request.max_content_length or 0
    if length is not None and length > limit:
        raise RequestEntityTooLarge
    if length is None and "HTTP_TRANSFER_ENCODING" not in request.environ:
        return b""
    body = bytearray()
    for piece in iter_pieces(request, limit if length is None else length, reservation):
        body += piece
    if length is not None and len(body) < length:
        raise incomplete_body_error()
    return release_small(body)


def release_small(body: bytearray) -> bytes:
    """A body that takes no more memory than it has bytes; a large one stays as it is, as copying it takes long."""
    return cast("bytes", body) if len(body) > MAX_PIECE_BYTES else bytes(body)


def iter_pieces(request: Request, wanted: int, reservation: Reservation) -> Iterator[bytes]:
    """Reads up to `wanted` bytes. Memory for a large body is reserved once its sender has shown that it sends."""
    stream, size = request.environ["wsgi.input"], UNRESERVED_BYTES
    try:
        while wanted and (data := stream.read(min(wanted, size))):
            wanted -= len(data)
            if size == UNRESERVED_BYTES and wanted:
                reservation.reserve(len(data) + wanted)
            size = PIECE_BYTES
            yield data
    except OSError:
        raise incomplete_body_error() from None


def incomplete_body_error() -> ApiError:
    return ApiError(400, "incomplete_body", "the body is shorter than its Content-Length")
