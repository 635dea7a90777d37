"""A corked socket sends the head of a response together with the start of its body."""

from web.server.corked_socket import MAX_JOINED_BYTES, CorkedSocket


class FakeSocket:
    """Records what is sent; accepts at most so many bytes per send."""

    def __init__(self, max_bytes: int = 1_000_000) -> None:
        self.sent: list[bytes] = []
        self.max_bytes = max_bytes

    def send(self, data: bytes) -> int:
        self.sent.append(bytes(data[: self.max_bytes]))
        return min(len(data), self.max_bytes)

    def sendall(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def shutdown(self) -> str:
        self.sent.append(b"shut")
        return "done"


def test_head_and_first_body_chunk_are_one_send():
    raw = FakeSocket()
    corked = CorkedSocket(raw)
    for part in (b"head ", b"body ", b"more ", b"end"):
        corked.sendall(part)
    assert raw.sent == [b"head body ", b"more ", b"end"]


def test_head_without_a_body_is_sent_once():
    raw = FakeSocket()
    corked = CorkedSocket(raw)
    corked.sendall(b"head")
    assert raw.sent == []
    corked.flush()
    corked.flush()
    assert raw.sent == [b"head"]


def test_socket_flushes_the_head_before_any_other_call():
    raw = FakeSocket()
    corked = CorkedSocket(raw)
    corked.sendall(b"head")
    assert corked.shutdown() == "done"
    assert raw.sent == [b"head", b"shut"]


def test_partial_send_is_completed():
    raw = FakeSocket(max_bytes=7)
    corked = CorkedSocket(raw)
    corked.sendall(b"head ")
    corked.sendall(b"body")
    assert raw.sent == [b"head bo", b"dy"]


def test_large_body_is_sent_without_a_copy():
    raw = FakeSocket()
    corked = CorkedSocket(raw)
    corked.sendall(b"head")
    corked.sendall(bytes(MAX_JOINED_BYTES + 1))
    assert [len(data) for data in raw.sent] == [4, MAX_JOINED_BYTES + 1]
