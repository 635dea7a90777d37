"""Seals an answer for Redis: compressed, in pieces, with AES-256-GCM (NIST SP 800-38D)."""

import os
import zlib
from collections.abc import Iterator, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.protocol.messages import Frame, FrameKind, decode_frames
from web.request.cooperative import run_in_slices

#: Bytes of a piece before it is sealed; and what sealing adds to each.
PIECE_BYTES, OVERHEAD_BYTES = 196_608, 12 + 16
NONCE_BYTES = 12
#: Bytes that are compressed, or sealed, at a time.
STEP_BYTES = 65_536
#: zlib's quickest level: a stream of events shrinks to a tenth with it too.
LEVEL = 1


def seal(frames: Sequence[Frame], key: bytes) -> list[bytes]:
    """The answer in pieces, each bound to its place; other requests get their turn meanwhile."""
    plain, pieces = bytearray(), list[bytes]()

    def work() -> Iterator[None]:
        compressor = zlib.compressobj(LEVEL)
        for data in iter_encoded(frames):
            for start in range(0, len(data), STEP_BYTES):
                plain.extend(compressor.compress(data[start : start + STEP_BYTES]))
                yield
        plain.extend(compressor.flush())
        cipher, starts = AESGCM(key), range(0, len(plain), PIECE_BYTES)
        for number, start in enumerate(starts):
            nonce = os.urandom(NONCE_BYTES)
            place = name_place(number, len(starts))
            pieces.append(nonce + cipher.encrypt(nonce, bytes(plain[start : start + PIECE_BYTES]), place))
            yield

    run_in_slices(work())
    return pieces


def unseal(pieces: Sequence[bytes], key: bytes) -> list[Frame]:
    """Raises ValueError when it was sealed with another key, or is not complete."""
    compressed, plain = list[bytes](), list[bytes]()

    def work() -> Iterator[None]:
        cipher, decompressor = AESGCM(key), zlib.decompressobj()
        for number, piece in enumerate(pieces):
            place = name_place(number, len(pieces))
            compressed.append(cipher.decrypt(piece[:NONCE_BYTES], piece[NONCE_BYTES:], place))
            yield
        for data in compressed:
            for start in range(0, len(data), STEP_BYTES):
                plain.append(decompressor.decompress(data[start : start + STEP_BYTES]))
                yield
        plain.append(decompressor.flush())

    try:
        run_in_slices(work())
    except (InvalidTag, zlib.error):
        raise ValueError("an answer can't be unsealed") from None
    return list(decode_frames(b"".join(plain)))


def name_place(number: int, count: int) -> bytes:
    """What a piece is sealed with, so that none can be left out, added or moved."""
    return f"{number}/{count}".encode()


def iter_encoded(frames: Sequence[Frame]) -> Iterator[bytes]:
    """The frames on the wire, all data in one."""
    head, end = frames[0], frames[-1]
    yield head.encode()
    body = b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)
    if body:
        yield Frame(FrameKind.DATA, 1, body).encode()
    yield end.encode()
