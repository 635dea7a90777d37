"""What entries of the request log keep of attempts and of the queue, and what older versions can read of it."""

import json

from shared.observability.request_log import FailedAttempt, LogEntry, RequestsAhead


def test_empty_fields_that_older_versions_do_not_know_are_left_out():
    lengths = [
        len(json.loads(LogEntry("req_1", "k1", **fields).encode()))  # type: ignore[arg-type]
        for fields in ({}, {"tried": "c1:timeout:0:5:9"}, {"ahead": "k2:7"})
    ]
    assert lengths == [lengths[0], lengths[0] + 1, lengths[0] + 2]


def test_attempts_are_read_with_and_without_their_start():
    assert FailedAttempt.parse("c1:timeout:0:5:9 c2:cut:200:7 junk c3:a") == (
        FailedAttempt("c1", "timeout", 0, 5, 9),
        FailedAttempt("c2", "cut", 200, 7, None),
    )


def test_keys_ahead_are_read():
    assert RequestsAhead.parse(" k2:7 a:b:3 *:12 junk k9:x") == (
        RequestsAhead("k2", 7),
        RequestsAhead("a:b", 3),
        RequestsAhead("*", 12),
    )
