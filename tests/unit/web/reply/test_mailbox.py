"""A mailbox keeps frames in order, requests missing ones, and bounds what it buffers."""

from shared.protocol.messages import OUT_OF_BAND, Failure, Frame, FrameKind
from shared.protocol.reply_acks import WINDOW_BYTES, Ack
from web.reply.mailbox import MAX_BUFFERED_BYTES, MAX_TOTAL_BUFFERED_BYTES, BufferedBytes, Mailbox


class RecordingMailbox(Mailbox):
    """A mailbox that records its acknowledgements."""

    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.total = BufferedBytes()
        super().__init__(
            "req_1", self.total, lambda mailbox, retransmit: self.acks.append(mailbox.build_ack(retransmit=retransmit))
        )


def build_frame(number: int, kind: FrameKind = FrameKind.DATA, payload: bytes = b"x") -> Frame:
    return Frame(kind, number, payload)


def test_frames_are_returned_together_in_order():
    mailbox = RecordingMailbox()
    mailbox.put(build_frame(0, FrameKind.HEAD))
    mailbox.put(build_frame(1))
    assert [frame.number for frame in mailbox.get(1)] == [0, 1]


def test_get_returns_an_empty_list_when_it_times_out():
    assert RecordingMailbox().get(0.001) == []


def test_duplicate_frames_are_dropped():
    mailbox = RecordingMailbox()
    for number in (0, 1, 0, 1, 2):
        mailbox.put(build_frame(number))
    assert [frame.number for frame in mailbox.get(1)] == [0, 1, 2]


def test_missing_frame_is_requested_and_later_frames_are_dropped():
    mailbox = RecordingMailbox()
    for number in (0, 2, 3):
        mailbox.put(build_frame(number))
    assert mailbox.acks == [Ack(0, 1, WINDOW_BYTES, True)], "one request per gap"
    for number in (1, 2, 3):
        mailbox.put(build_frame(number))
    assert [frame.number for frame in mailbox.get(1)] == [0, 1, 2, 3]
    assert mailbox.gap_since == 0


def test_silence_is_probed_at_intervals():
    mailbox = RecordingMailbox()
    mailbox.put(build_frame(0))
    mailbox.probe_if_silent()
    assert mailbox.acks == []
    mailbox.last_frame_at -= 1.1
    mailbox.probe_if_silent()
    mailbox.probe_if_silent()
    assert mailbox.acks == [Ack(0, 1, WINDOW_BYTES, True)]
    mailbox.probe_soon()
    mailbox.probe_if_silent()
    assert len(mailbox.acks) == 2


def test_window_grows_while_the_reader_keeps_up():
    mailbox = RecordingMailbox()
    size = WINDOW_BYTES // 4
    for number in range(20):
        mailbox.put(build_frame(number, payload=bytes(size)))
        mailbox.get(1)
    assert [ack.window_end for ack in mailbox.acks] == [
        WINDOW_BYTES // 4 * n + WINDOW_BYTES for n in range(2, 21, 2)
    ], "one acknowledgement per half window"
    assert mailbox.total.bytes == 0


def test_slow_reader_closes_the_window_until_it_reads():
    mailbox = RecordingMailbox()
    number = 0
    while mailbox.position[2] - number * WINDOW_BYTES // 4 > 0:
        mailbox.put(build_frame(number, payload=bytes(WINDOW_BYTES // 4)))
        number += 1
    held = mailbox.total.bytes
    assert MAX_BUFFERED_BYTES <= held <= MAX_BUFFERED_BYTES + WINDOW_BYTES
    ack_count = len(mailbox.acks)
    mailbox.get(1)
    assert len(mailbox.acks) == ack_count + 1
    mailbox.put(build_frame(number, payload=b"x"))
    mailbox.close()
    assert mailbox.total.bytes == 0


def test_buffer_is_smaller_when_all_mailboxes_hold_much():
    mailbox = RecordingMailbox()
    mailbox.total.bytes = MAX_TOTAL_BUFFERED_BYTES
    number = 0
    while mailbox.position[2] - number * WINDOW_BYTES // 8 > 0:
        mailbox.put(build_frame(number, payload=bytes(WINDOW_BYTES // 8)))
        number += 1
    assert mailbox.total.bytes - MAX_TOTAL_BUFFERED_BYTES == WINDOW_BYTES


def test_out_of_band_failure_ends_the_reply():
    mailbox = RecordingMailbox()
    mailbox.put(build_frame(0))
    mailbox.put(build_frame(OUT_OF_BAND, FrameKind.FAILURE, b"{}"))
    assert mailbox.ended
    assert not mailbox.ended_by_front


def test_frames_after_the_end_are_dropped():
    mailbox = RecordingMailbox()
    mailbox.put(build_frame(0, FrameKind.END))
    mailbox.put(build_frame(1))
    assert len(mailbox.get(1)) == 1


def test_caller_who_leaves_wakes_the_reader():
    mailbox = RecordingMailbox()
    mailbox.abandon()
    assert Failure.decode(mailbox.get(1)[0].payload).code == "client_gone"
    assert mailbox.ended_by_front


def test_frames_of_another_attempt_are_dropped():
    mailbox = RecordingMailbox()
    for number, tag in ((0, 7), (1, 8), (1, 7), (2, 8)):
        mailbox.put(Frame(FrameKind.DATA, number, str(tag).encode(), tag))
    assert [frame.payload for frame in mailbox.get(1)] == [b"7", b"7"]
