"""Receivers of alerts: what their names show, and when they may be told."""

import pytest

from shared.alerts.receivers import HOUR_SECONDS, MAX_RETRY_SECONDS, Receiver, mask_url, remove_secrets


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("json://operator:secret@hooks.example.org:8080/path-secret?k=v", "json://hooks.example.org:8080/…"),
        ("mailto://user:pass@mail.example.org?to=a@b.c", "mailto://mail.example.org/…"),
        ("mailto://mail.example.org", "mailto://mail.example.org"),
        ("JSONS://10.0.0.1", "jsons://10.0.0.1"),
        ("tgram://123456:bottoken/chat", "tgram://…"),
        ("slack://T1/B2/token", "slack://…"),
        ("json://user:p@ss/word@host/x", "json://…"),
    ],
)
def test_name_of_a_receiver_has_no_secret(url: str, name: str):
    assert mask_url(url) == name


def test_error_of_a_service_has_no_part_of_its_url():
    url = "json://operator:hun%20ter2@127.0.0.1:80/hook-secret/second?token=query-secret"
    text = f"failed for {url}: operator, hun ter2, hun%20ter2, /hook-secret/second, query-secret on 127.0.0.1"
    shown = remove_secrets(text, url)
    for secret in ("operator", "ter2", "hook-secret", "second", "query-secret"):
        assert secret not in shown
    assert "127.0.0.1" in shown


def test_longer_secret_that_begins_like_another_leaves_no_rest():
    url = "json://host/abcd/abcdefgh"
    assert remove_secrets("refused abcdefgh and abcd", url) == "refused … and …"


def test_short_parts_and_urls_that_are_none_to_others_do_no_harm():
    assert remove_secrets("error 12 of ab", "tgram://12/ab") == "error 12 of ab"
    assert remove_secrets("refused secret-token", "slack://[x/secret-token") == "refused …"


def test_message_is_due_when_the_hour_has_room():
    full = Receiver("r", sent=(100.0, 200.0, 300.0))
    assert full.due_at(4) == 0
    assert full.due_at(3) == 100 + HOUR_SECONDS
    assert full.due_at(2) == 200 + HOUR_SECONDS
    assert full.with_delivery("5-0", 150 + HOUR_SECONDS).sent == (200.0, 300.0, 150 + HOUR_SECONDS)


def test_failed_receiver_is_tried_again_with_growing_pauses():
    receiver, pauses = Receiver("r"), []
    for _ in range(9):
        receiver = receiver.with_failure("refused", 1000.0)
        pauses.append(receiver.retry_at - 1000)
    assert pauses[:3] == [10, 20, 40] and pauses[-1] == MAX_RETRY_SECONDS
    assert receiver.due_at(20) == receiver.retry_at
    assert receiver.with_failure("refused", 5000.0).failed_since == 1000
    back = receiver.with_delivery("5-0", 2000.0)
    assert (back.failures, back.error, back.due_at(20), back.cursor) == (0, "", 0, "5-0")


def test_record_survives_the_way_to_redis():
    receiver = Receiver("r", "5-0", (1.0, 2.0), 3, 4.0, 5.0, "refused")
    decoded = Receiver.decode(receiver.encode().encode())
    assert (tuple(decoded.sent), decoded.cursor, decoded.retry_at, decoded.error) == ((1.0, 2.0), "5-0", 5.0, "refused")
