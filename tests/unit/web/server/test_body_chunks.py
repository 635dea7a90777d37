"""gunicorn receives no more of a body at once than the app reads at once."""

from gunicorn.http.unreader import SocketUnreader

from web.server import gunicorn_worker
from web.server.request_input import PIECE_BYTES


class RecordingSocket:
    """A socket with endless bytes, which records how many it was asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def recv(self, size: int) -> bytes:
        self.sizes.append(size)
        return size * b"x"


def test_surplus_of_a_body_is_not_copied_for_each_piece():
    assert gunicorn_worker.FarmGunicornWorker
    raw = RecordingSocket()
    unreader = SocketUnreader(raw)
    for left in range(20 * PIECE_BYTES, 0, -PIECE_BYTES):
        assert len(unreader.read(PIECE_BYTES, read_ahead=left)) == PIECE_BYTES
    assert raw.sizes == 20 * [PIECE_BYTES]
