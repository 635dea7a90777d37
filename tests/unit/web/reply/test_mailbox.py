from shared.protocol.messages import OUT_OF_BAND, Failure, Frame, FrameKind
from shared.protocol.reply_acks import WINDOW_BYTES, Ack
from web.reply.mailbox import MAX_BUFFERED_BYTES, MAX_TOTAL_BUFFERED_BYTES, BufferedBytes, Mailbox


class Asked(Mailbox):
    """A mailbox that notes what it says to the worker."""

    def __init__(self) -> None:
        self.said: list[Ack] = []
        self.all = BufferedBytes()
        super().__init__(
            "req_1", self.all, lambda mailbox, retransmit: self.said.append(mailbox.build_ack(retransmit=retransmit))
        )


def frame(number: int, kind: FrameKind = FrameKind.DATA, payload: bytes = b"x") -> Frame:
    return Frame(kind, number, payload)


def test_frames_come_in_order_and_together():
    mailbox = Asked()
    mailbox.put(frame(0, FrameKind.HEAD))
    mailbox.put(frame(1))
    assert [one.number for one in mailbox.get(1)] == [0, 1]


def test_nothing_in_time_is_an_empty_list():
    assert Asked().get(0.001) == []


def test_a_frame_that_was_there_before_is_dropped():
    mailbox = Asked()
    for number in (0, 1, 0, 1, 2):
        mailbox.put(frame(number))
    assert [one.number for one in mailbox.get(1)] == [0, 1, 2]


def test_a_missing_frame_is_asked_for_and_what_came_too_early_is_dropped():
    mailbox = Asked()
    for number in (0, 2, 3):
        mailbox.put(frame(number))
    assert mailbox.said == [Ack(0, 1, WINDOW_BYTES, True)], "one question about one gap"
    for number in (1, 2, 3):
        mailbox.put(frame(number))
    assert [one.number for one in mailbox.get(1)] == [0, 1, 2, 3]
    assert mailbox.gap_since == 0


def test_silence_is_asked_about_now_and_then():
    mailbox = Asked()
    mailbox.put(frame(0))
    mailbox.probe_if_silent()
    assert mailbox.said == []
    mailbox.last_frame_at -= 1.1
    mailbox.probe_if_silent()
    mailbox.probe_if_silent()
    assert mailbox.said == [Ack(0, 1, WINDOW_BYTES, True)]
    mailbox.probe_soon()
    mailbox.probe_if_silent()
    assert len(mailbox.said) == 2


def test_more_may_come_as_long_as_the_reader_keeps_up():
    mailbox = Asked()
    size = WINDOW_BYTES // 4
    for number in range(20):
        mailbox.put(frame(number, payload=bytes(size)))
        mailbox.get(1)
    assert [one.window_end for one in mailbox.said] == [
        WINDOW_BYTES // 4 * n + WINDOW_BYTES for n in range(2, 21, 2)
    ], "it says so once for each half of the window"
    assert mailbox.all.bytes == 0


def test_a_reader_that_does_not_keep_up_stops_the_flow_until_it_has_read():
    mailbox = Asked()
    number = 0
    while mailbox.position[2] - number * WINDOW_BYTES // 4 > 0:
        mailbox.put(frame(number, payload=bytes(WINDOW_BYTES // 4)))
        number += 1
    held = mailbox.all.bytes
    assert MAX_BUFFERED_BYTES <= held <= MAX_BUFFERED_BYTES + WINDOW_BYTES
    said = len(mailbox.said)
    mailbox.get(1)
    assert len(mailbox.said) == said + 1
    mailbox.put(frame(number, payload=b"x"))
    mailbox.close()
    assert mailbox.all.bytes == 0


def test_when_much_waits_in_all_each_may_hold_less():
    mailbox = Asked()
    mailbox.all.bytes = MAX_TOTAL_BUFFERED_BYTES
    number = 0
    while mailbox.position[2] - number * WINDOW_BYTES // 8 > 0:
        mailbox.put(frame(number, payload=bytes(WINDOW_BYTES // 8)))
        number += 1
    assert mailbox.all.bytes - MAX_TOTAL_BUFFERED_BYTES == WINDOW_BYTES


def test_a_failure_out_of_band_ends_the_answer():
    mailbox = Asked()
    mailbox.put(frame(0))
    mailbox.put(frame(OUT_OF_BAND, FrameKind.FAILURE, b"{}"))
    assert mailbox.ended
    assert not mailbox.ended_by_front


def test_nothing_comes_after_the_end():
    mailbox = Asked()
    mailbox.put(frame(0, FrameKind.END))
    mailbox.put(frame(1))
    assert len(mailbox.get(1)) == 1


def test_a_caller_that_leaves_wakes_whoever_waits():
    mailbox = Asked()
    mailbox.abandon()
    assert Failure.decode(mailbox.get(1)[0].payload).code == "client_gone"
    assert mailbox.ended_by_front


def test_another_attempts_frames_are_never_mixed_in():
    mailbox = Asked()
    for number, tag in ((0, 7), (1, 8), (1, 7), (2, 8)):
        mailbox.put(Frame(FrameKind.DATA, number, str(tag).encode(), tag))
    assert [one.payload for one in mailbox.get(1)] == [b"7", b"7"]
