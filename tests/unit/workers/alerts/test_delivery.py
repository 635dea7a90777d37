"""What becomes of a message that a service refuses."""

import logging

import apprise
import pytest

from shared.alerts.notices import Message
from workers.alerts.delivery import MAX_ERROR_LENGTH, READ_TIMEOUT_SECONDS, send

URL = "json://operator:hunter2hunter2@127.0.0.1/hook-secret"


# A client of a service among apprise's plugins imports it.
@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_refusal_is_told_without_secrets_within_bounds_and_only_to_the_operator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    timeouts = []

    def refuse(service: apprise.NotifyBase, *_: object, **__: object) -> bool:
        timeouts.append(service.socket_read_timeout)
        logging.getLogger("apprise").warning("%s refused %s", URL, "x" * 1000)
        return False

    monkeypatch.setattr("apprise.plugins.custom_json.NotifyJSON.send", refuse)
    error = send(URL, Message("info", "title", "body"))
    assert "refused" in error and len(error) == MAX_ERROR_LENGTH
    assert not [secret for secret in ("hunter2", "hook-secret", "operator") if secret in error]
    assert caplog.text == ""
    assert timeouts == [READ_TIMEOUT_SECONDS]
