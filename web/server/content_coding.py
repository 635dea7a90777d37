"""Decodes compressed request bodies, in bounded memory (RFC 9110 section 8.4).

gzip and deflate always; zstd and br where a library for them is installed (`backports.zstd`, or Python 3.14; `brotli`).
"""

import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import gevent
from werkzeug.exceptions import RequestEntityTooLarge

from shared.errors import ApiError

#: Bytes decoded at a time.
PIECE_BYTES = 65_536
#: Codings that may be applied one upon another.
MAX_CODINGS = 3
#: How many times its size a body of gzip or deflate can become.
MAX_ZLIB_RATIO = 1032
#: Base-2 logarithm of the window that a zstd body may need, in bytes (RFC 9659).
MAX_ZSTD_WINDOW_LOG = 23
ZSTD_MODULES = ("compression.zstd", "backports.zstd")


class InvalidCoding(ValueError):
    """Raised for data that is not of the coding."""


class Decoder(Protocol):
    """Decodes one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what the data decodes to, at most PIECE_BYTES at a time."""

    @property
    def is_complete(self) -> bool:
        """Whether the data ends where the coding says."""


class ZlibDecoder:
    """Decodes gzip, of one or several members (RFC 1952), and deflate, also without the header of RFC 1950."""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._object: Any = zlib.decompressobj(31) if is_gzip else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._object is None:
            has_header = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._object = zlib.decompressobj(15 if has_header else -15)
        while True:
            if self._object.eof and data:
                self._begin_member()
            piece = self._object.decompress(data, PIECE_BYTES)
            data = self._object.unconsumed_tail or self._object.unused_data
            if piece:
                yield piece
            if not data and len(piece) < PIECE_BYTES:
                return

    def _begin_member(self) -> None:
        if not self._is_gzip:
            raise InvalidCoding
        self._object = zlib.decompressobj(31)

    @property
    def is_complete(self) -> bool:
        return self._object is not None and bool(self._object.eof)


class ZstdDecoder:
    """Decodes zstd, of one or several frames (RFC 8878)."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._begin_frame()

    def _begin_frame(self) -> None:
        limit = {self._module.DecompressionParameter.window_log_max: MAX_ZSTD_WINDOW_LOG}
        self._object = self._module.ZstdDecompressor(options=limit)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._object.eof:
                if not data:
                    return
                self._begin_frame()
            piece = self._object.decompress(data, PIECE_BYTES)
            data = self._object.unused_data
            if piece:
                yield piece
            if self._object.needs_input and not self._object.eof:
                return

    @property
    def is_complete(self) -> bool:
        return bool(self._object.eof)


class BrotliDecoder:
    """Decodes br (RFC 7932)."""

    def __init__(self, module: Any) -> None:
        self._object = module.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._object.process(data, output_buffer_limit=PIECE_BYTES)
            data = b""
            if piece:
                yield piece
            if not piece:
                return

    @property
    def is_complete(self) -> bool:
        return bool(self._object.is_finished())


def find_module(*names: str) -> Any:
    """The first of the modules that is installed, or None."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def find_decoders() -> dict[str, Callable[[], Decoder]]:
    """Name of a coding -> its decoder."""
    decoders: dict[str, Callable[[], Decoder]] = {
        "gzip": lambda: ZlibDecoder(is_gzip=True),
        "deflate": lambda: ZlibDecoder(is_gzip=False),
    }
    if zstd := find_module(*ZSTD_MODULES):
        decoders["zstd"] = lambda: ZstdDecoder(zstd)
    brotli = find_module("brotli")
    # Older versions decode whatever comes in one go.
    if brotli and hasattr(brotli.Decompressor, "can_accept_more_data"):
        decoders["br"] = lambda: BrotliDecoder(brotli)
    return decoders


DECODERS = find_decoders()
ALIASES = {"x-gzip": "gzip"}
#: What is no coding of the body, or undone already.
NO_CODINGS = ("", "identity", "chunked")


def parse_codings(content_encoding: str, transfer_encoding: str = "") -> list[str]:
    """The codings that these headers name, in the order in which they were applied. Raises ApiError 415."""
    names = [name.strip().lower() for name in f"{content_encoding},{transfer_encoding}".split(",")]
    codings = [ALIASES.get(name, name) for name in names if name not in NO_CODINGS]
    if len(codings) > MAX_CODINGS or not set(codings) <= set(DECODERS):
        raise unsupported_coding_error(", ".join(DECODERS))
    return codings


def unsupported_coding_error(accepted: str) -> ApiError:
    """`accepted` is the value of the Accept-Encoding header (RFC 9110 section 12.5.3)."""
    message = f"the body's Content-Encoding is not supported here; supported: {accepted}"
    return ApiError(415, "unsupported_media_type", message, headers={"accept-encoding": accepted})


def bound_decoded_size(size: int, codings: list[str], limit: int) -> int:
    """How many bytes a body of `size` bytes may become, `limit` at most."""
    for coding in codings:
        size = size * MAX_ZLIB_RATIO if coding in ("gzip", "deflate") else limit
    return min(size, limit)


def decode_body(body: bytes, codings: list[str], limit: int) -> bytearray:
    """Undoes the codings. Raises ApiError 400, RequestEntityTooLarge (413) beyond `limit` bytes."""
    decoded = bytearray()
    for coding in reversed(codings):
        decoded = bytearray()
        for piece in decode(body, coding, limit):
            decoded += piece
        body = cast("bytes", decoded)
    return decoded


def decode(body: bytes, coding: str, limit: int) -> Iterator[bytes]:
    decoder, size = DECODERS[coding](), 0
    try:
        for start in range(0, len(body), PIECE_BYTES):
            for piece in decoder.feed(body[start : start + PIECE_BYTES]):
                size += len(piece)
                if size > limit:
                    raise RequestEntityTooLarge
                yield piece
                # A large body must not keep the event loop to itself.
                gevent.sleep(0)
    except RequestEntityTooLarge:
        raise
    except Exception as error:
        # Each library has its own.
        raise invalid_coding_error(coding) from error
    if not decoder.is_complete:
        raise invalid_coding_error(coding)


def invalid_coding_error(coding: str) -> ApiError:
    return ApiError(400, "invalid_body", f"the body is not valid {coding}, which its Content-Encoding says it is")
