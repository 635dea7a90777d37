"""Two versions of the farm on one Redis read each other's records.

samples_0_1.json holds records exactly as version 0.1 (before its decoders ignored unknown fields) wrote them. This
version reads them, and writes nothing that 0.1 could not read.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.processes.data_dir import FarmRecord
from shared.api_keys.admin_tokens import AdminToken
from shared.api_keys.api_key import ApiKey
from shared.decoding import UnreadableRecord, decode_record, parse_model
from shared.observability.request_log import LogEntry
from shared.protocol.credential_operations import CredentialOperation
from shared.protocol.job_data import decode_request
from shared.protocol.messages import OUT_OF_BAND, Failure, Frame, FrameKind, Head, RelayRequest, decode_frames
from shared.protocol.reply_acks import Ack, AckBatch

SAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("samples_0_1.json").read_text())
REQUEST = RelayRequest(
    id="req_1",
    pool="default",
    path="/chat/completions?k=v",
    headers={"content-type": "application/json"},
    front="front1",
    channel="farm:reply:front1:req_1",
    enqueued_at=1000.5,
    deadline=1900.5,
    stream=True,
    key="key1",
    band="batch",
    model="gpt-4o",
    hides_usage=True,
)
HEAD = Head(200, {"content-type": "text/event-stream"}, 2, 15, 120)
FAILURE = Failure(502, "worker_lost", "the worker died", "server_error", 3, {"retry-after": "1"})
FRAMES = [
    Frame(FrameKind.HEAD, 0, HEAD.encode(), 7),
    Frame(FrameKind.DATA, 1, b"data: x\n\n", 7),
    Frame(FrameKind.END, 2, b"", 7),
    Frame(FrameKind.FAILURE, OUT_OF_BAND, FAILURE.encode()),
]
ACKS = AckBatch("front1", {"req_1": Ack(7, 3, 262144, True), "req_2": Ack(None, 0, 262144, False)}, ["req_3"])
OPERATION = CredentialOperation("default", "cred1", "test", "gpt-4o", "0123456789abcdef")
LOG_ENTRY = LogEntry(
    *("req_1", "key1", "default", "gpt-4o", "/chat/completions", "batch", 1, 200, 2, "cred1"),
    *(15, 120, 900, 10, 5, 1, "", "done"),
)


def test_a_job_of_0_1_is_read():
    assert decode_request(base64.b64decode(SAMPLES["job_data"])) == REQUEST


def test_messages_of_0_1_are_read():
    assert list(decode_frames(base64.b64decode(SAMPLES["frames"]))) == FRAMES
    assert Head.decode(FRAMES[0].payload) == HEAD
    assert Failure.decode(FRAMES[3].payload) == FAILURE
    assert AckBatch.decode(SAMPLES["acks"].encode()) == ACKS
    assert CredentialOperation.decode(SAMPLES["operation"].encode()) == OPERATION


def test_stored_records_of_0_1_are_read():
    assert LogEntry.decode(SAMPLES["log_entry"].encode()) == LOG_ENTRY
    key = parse_model(ApiKey, SAMPLES["api_key"])
    assert key and (key.models, key.quota_zone, key.band, key.version) == (("gpt-*",), "Europe/Berlin", "batch", 3)
    token = parse_model(AdminToken, SAMPLES["admin_token"])
    assert token and (token.id, token.role) == ("first", "admin")
    assert decode_record(FarmRecord, SAMPLES["farm_record"]).processes == {"2": 1000.25}


def test_0_1_can_read_what_this_version_sends():
    """Its decoders know exactly these fields, by name or by position."""
    assert REQUEST.encode() == SAMPLES["relay_request"]
    assert b"".join(frame.encode() for frame in FRAMES) == base64.b64decode(SAMPLES["frames"])
    assert json.loads(ACKS.encode()) == json.loads(SAMPLES["acks"])
    assert json.loads(OPERATION.encode()) == json.loads(SAMPLES["operation"])
    assert json.loads(LOG_ENTRY.encode()) == json.loads(SAMPLES["log_entry"])


#: An entry with all fields that this version knows; the last two are left out when they are empty.
RETRIED = replace(LOG_ENTRY, tried="c1:timeout:0:5:9", ahead="k2:7 *:1")


def with_field(encoded: bytes) -> bytes:
    return json.dumps({**json.loads(encoded), "new": {"of": "a newer version"}}).encode()


def with_elements(encoded: bytes) -> bytes:
    return json.dumps([*json.loads(encoded), "new", {}]).encode()


@pytest.mark.parametrize(
    ("decode", "encoded", "expected"),
    [
        (
            lambda data: RelayRequest.decode(json.loads(data)),
            with_field(json.dumps(REQUEST.encode()).encode()),
            REQUEST,
        ),
        (Head.decode, with_field(HEAD.encode()), HEAD),
        (Failure.decode, with_field(FAILURE.encode()), FAILURE),
        (AckBatch.decode, with_field(ACKS.encode()), ACKS),
        (
            AckBatch.decode,
            b'{"front": "p", "at": {"r": [7, 3, 9, true, "new"]}}',
            AckBatch("p", {"r": Ack(7, 3, 9, True)}),
        ),
        (CredentialOperation.decode, with_field(OPERATION.encode().encode()), OPERATION),
        (LogEntry.decode, with_elements(RETRIED.encode().encode()), RETRIED),
        (LogEntry.decode, b'["req_1", "key1"]', LogEntry("req_1", "key1")),
        (Head.decode, b'{"status": 200}', Head(200)),
        (Failure.decode, b'{"status": 500, "code": "c", "message": "m"}', Failure(500, "c", "m")),
    ],
)
def test_unknown_fields_are_ignored_and_missing_ones_have_defaults(
    decode: Callable[[bytes], Any], encoded: bytes, expected: Any
):
    assert decode(encoded) == expected


@pytest.mark.parametrize(
    "encoded", [b"", b"\xff", b"[", b"[" * 9999, b"null", b"3", b"[]", b"{}", b'{"status": "200"}']
)
def test_a_broken_record_is_one_error(encoded: bytes):
    with pytest.raises(UnreadableRecord):
        Head.decode(encoded)


def test_a_record_whose_values_are_of_a_newer_kind_is_not_an_error(caplog: pytest.LogCaptureFixture):
    newer = {**json.loads(SAMPLES["admin_token"]), "role": "auditor"}
    assert parse_model(AdminToken, json.dumps(newer)) is None
    assert "auditor" not in caplog.text
