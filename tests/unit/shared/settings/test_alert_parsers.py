"""Settings of alerts."""

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings.alert_parsers import ALERT_RULES, parse_alert_urls
from shared.settings.loading import load_settings
from shared.settings.schema import describe

NOWHERE = Path("/nowhere")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("json://a/x", 1),
        ("json://a/x json://b/y", 2),
        ("json://a/x,\n  mailto://u:p@h?to=a@b.c,d@e.f , tgram://t/c", 3),
        ("json://a/x json://a/x", 1),
        (["json://a/x", "slack://T/B/t"], 2),
    ],
)
def test_urls_are_separated_by_white_space_or_commas_before_a_service(text: object, count: int):
    urls = parse_alert_urls(text)
    assert len(urls) == count and all("://" in url for url in urls)


def test_url_that_is_none_is_refused_without_being_shown():
    with pytest.raises(SettingsError, match="FARM_ALERT_URLS has an entry, number 2") as caught:
        load_settings({"FARM_ALERT_URLS": "json://a/x hunter2secret"}, NOWHERE)
    assert "hunter2" not in str(caught.value)


def test_urls_are_secrets():
    settings = load_settings({"FARM_ALERT_URLS": "json://a/hook-secret"}, NOWHERE)
    assert "hook-secret" not in repr(settings)
    assert describe(settings)["alert_urls"] == "set"


def test_unknown_rule_is_refused():
    assert load_settings({"FARM_ALERT_RULES": "quota, account_dead"}, NOWHERE).alert_rules == ("quota", "account_dead")
    assert load_settings({}, NOWHERE).alert_rules == tuple(ALERT_RULES)
    with pytest.raises(SettingsError, match="account_ded"):
        load_settings({"FARM_ALERT_RULES": "account_ded"}, NOWHERE)


def test_unknown_language_is_refused():
    assert load_settings({"FARM_ALERT_LANGUAGE": "zh"}, NOWHERE).alert_language == "zh"
    assert load_settings({}, NOWHERE).alert_language == "en"
    with pytest.raises(SettingsError, match="FARM_ALERT_LANGUAGE must be one of en, zh"):
        load_settings({"FARM_ALERT_LANGUAGE": "tlh"}, NOWHERE)
