"""Relay requests, frames and failures survive their encoding."""

import json

import pytest

from shared.protocol.messages import Failure, Frame, FrameKind, Head, RelayRequest, decode_frames

REQUEST = RelayRequest(
    id="req_1",
    pool="default",
    path="/chat/completions?x=1",
    headers={"content-type": "application/json"},
    front="p",
    channel="farm:reply:p:req_1",
    enqueued_at=1.5,
    deadline=9.0,
    stream=True,
)


def test_relay_request_survives_json():
    assert RelayRequest.decode(json.loads(json.dumps(REQUEST.encode()))) == REQUEST


def test_concatenated_frames_are_decoded_in_order():
    frames = [
        Frame(FrameKind.HEAD, 0, b"{}"),
        Frame(FrameKind.DATA, 1, bytes(range(256)), tag=0xFFFF_FFFF),
        Frame(FrameKind.END, 2),
    ]
    assert list(decode_frames(b"".join(frame.encode() for frame in frames))) == frames


@pytest.mark.parametrize("cut", [1, 12, 16])
def test_truncated_message_is_refused(cut: int):
    message = Frame(FrameKind.DATA, 0, b"hello").encode()[:cut]
    with pytest.raises(ValueError, match="truncated"):
        list(decode_frames(message))


def test_frame_of_an_unknown_kind_keeps_its_number():
    frames = b"\x09" + bytes(12) + Frame(FrameKind.END, 1).encode()
    assert [(frame.kind, frame.number) for frame in decode_frames(frames)] == [
        (FrameKind.UNKNOWN, 0),
        (FrameKind.END, 1),
    ]


def test_head_and_failure_survive_their_encoding():
    head = Head(200, {"content-type": "text/plain"}, 2, 15, 30)
    failure = Failure(502, "upstream_eof", "broke off", "upstream_error", 3, {"retry-after": "1"})
    assert Head.decode(head.encode()) == head
    assert Failure.decode(failure.encode()) == failure


def test_failure_tells_the_caller_how_many_attempts_were_made():
    error = Failure(502, "upstream_eof", "broke off", "upstream_error", 3).to_error()
    assert error.headers["x-farm-attempts"] == "3"
    assert json.loads(error.body())["error"] == {
        "message": "broke off",
        "type": "upstream_error",
        "param": None,
        "code": "upstream_eof",
    }
