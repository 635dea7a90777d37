"""An answer's head travels with the first of its body."""

from web.server.corked_socket import MAX_JOINED_BYTES, CorkedSocket


class Socket:
    """Keeps what is sent; takes at most so many bytes at once."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.sent: list[bytes] = []
        self.most = most

    def send(self, data: bytes) -> int:
        self.sent.append(bytes(data[: self.most]))
        return min(len(data), self.most)

    def sendall(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def shutdown(self) -> str:
        self.sent.append(b"shut")
        return "done"


def test_head_and_body_are_one_send():
    raw = Socket()
    joined = CorkedSocket(raw)
    for part in (b"head ", b"body ", b"more ", b"end"):
        joined.sendall(part)
    assert raw.sent == [b"head body ", b"more ", b"end"]


def test_a_head_without_a_body_is_sent_once():
    raw = Socket()
    joined = CorkedSocket(raw)
    joined.sendall(b"head")
    assert raw.sent == []
    joined.flush()
    joined.flush()
    assert raw.sent == [b"head"]


def test_what_else_is_done_with_the_socket_comes_after_the_head():
    raw = Socket()
    joined = CorkedSocket(raw)
    joined.sendall(b"head")
    assert joined.shutdown() == "done"
    assert raw.sent == [b"head", b"shut"]


def test_a_socket_that_takes_a_part_gets_the_rest():
    raw = Socket(most=7)
    joined = CorkedSocket(raw)
    joined.sendall(b"head ")
    joined.sendall(b"body")
    assert raw.sent == [b"head bo", b"dy"]


def test_a_large_body_is_not_copied():
    raw = Socket()
    joined = CorkedSocket(raw)
    joined.sendall(b"head")
    joined.sendall(bytes(MAX_JOINED_BYTES + 1))
    assert [len(one) for one in raw.sent] == [4, MAX_JOINED_BYTES + 1]
