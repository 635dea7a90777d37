from shared.messages import OUT_OF_BAND, Failure, Frame, FrameKind
from web.hub import Mailbox


def frame(number: int, kind: FrameKind = FrameKind.DATA, payload: bytes = b"x") -> Frame:
    return Frame(kind, number, payload)


def test_frames_come_in_order_and_together():
    mailbox = Mailbox("req_1")
    mailbox.put(frame(0, FrameKind.HEAD))
    mailbox.put(frame(1))
    assert [one.number for one in mailbox.get(1)] == [0, 1]


def test_nothing_in_time_is_an_empty_list():
    assert Mailbox("req_1").get(0.001) == []


def test_a_frame_that_was_there_before_is_dropped():
    mailbox = Mailbox("req_1")
    for number in (0, 1, 0, 1, 2):
        mailbox.put(frame(number))
    assert [one.number for one in mailbox.get(1)] == [0, 1, 2]


def test_a_gap_ends_the_answer_with_a_failure():
    mailbox = Mailbox("req_1")
    mailbox.put(frame(0))
    mailbox.put(frame(2))
    mailbox.put(frame(3))
    got = mailbox.get(1)
    assert [one.kind for one in got] == [FrameKind.DATA, FrameKind.FAILURE]
    assert Failure.decode(got[1].payload).code == "reply_gap"
    assert mailbox.ended_here


def test_a_failure_out_of_band_ends_the_answer():
    mailbox = Mailbox("req_1")
    mailbox.put(frame(0))
    mailbox.put(frame(OUT_OF_BAND, FrameKind.FAILURE, b"{}"))
    assert mailbox.ended
    assert not mailbox.ended_here


def test_nothing_comes_after_the_end():
    mailbox = Mailbox("req_1")
    mailbox.put(frame(0, FrameKind.END))
    mailbox.put(frame(1))
    assert len(mailbox.get(1)) == 1


def test_a_caller_that_leaves_wakes_whoever_waits():
    mailbox = Mailbox("req_1")
    mailbox.leave()
    assert Failure.decode(mailbox.get(1)[0].payload).code == "client_gone"
    assert mailbox.ended_here


def test_another_attempts_frames_are_never_mixed_in():
    mailbox = Mailbox("req_1")
    for number, tag in ((0, 7), (1, 8), (1, 7), (2, 8)):
        mailbox.put(Frame(FrameKind.DATA, number, str(tag).encode(), tag))
    assert [one.payload for one in mailbox.get(1)] == [b"7", b"7"]
