"""Messages made of notices."""

from shared.alerts.notices import MAX_LINE_LENGTH, MAX_LINES, Alert, Notice, compose
from shared.languages.catalogues import load_languages

ALERT = Alert("upstream_down", "gpt", "", "the upstream is down", "the upstream was down", since=100.0)


def raise_and_end(*times: float) -> list[Notice]:
    """The alert raised and over by turns."""
    kinds = ("raised", "over")
    return [Notice.of("raised" if not i % 2 else "over", ALERT, at) for i, at in enumerate(times) if kinds]


def test_one_alert_is_told_in_the_title():
    message = compose(raise_and_end(100.0), "farm.example", "https://farm.example/admin/events")
    assert message.title == "[farm.example] gpt: the upstream is down"
    assert message.body.splitlines() == [
        "1970-01-01 00:01:40 UTC gpt: the upstream is down",
        "https://farm.example/admin/events",
    ]
    assert message.kind == "failure"


def test_end_tells_how_long_it_lasted():
    message = compose(raise_and_end(100.0, 290.0), "f", "")
    assert message.title == "[f] gpt: the upstream was down" and message.kind == "success"
    assert message.body == "1970-01-01 00:04:50 UTC over after 3 min: gpt: the upstream was down"


def test_alert_that_was_over_before_it_was_raised_by_another_clock_lasted_no_time():
    assert "over after 0 s" in compose(raise_and_end(100.0, 90.0), "f", "").body


def test_what_came_and_went_is_one_line():
    message = compose(raise_and_end(100.0, 110.0, 120.0, 130.0, 140.0), "f", "")
    assert message.body == "1970-01-01 00:02:20 UTC gpt: the upstream is down (3 times)"


def test_many_alerts_are_counted_and_bounded():
    alerts = [Alert("account_dead", "gpt", f"c{number}", f"account {number} is dead", "") for number in range(40)]
    message = compose([*(Notice.of("raised", alert, 1.0) for alert in alerts), *raise_and_end(1.0, 2.0)], "f", "")
    assert message.title == "[f] 40 alerts raised, 1 over"
    assert len(message.body.splitlines()) == MAX_LINES + 1 and message.body.endswith(f"and {41 - MAX_LINES} more")


def test_message_is_in_the_chosen_language_with_the_values_of_its_alerts():
    text, over = "account %(name)s is dead: %(reason)s", "account %(name)s was dead"
    dead = Alert("account_dead", "gpt", "c1", text, over, 100.0, values={"name": "100%(x)s", "reason": "invalid_grant"})
    chinese = load_languages()["zh"].texts
    notices = [Notice.of("raised", dead, 100.0), Notice.of("over", dead, 7400.0)]
    assert compose(notices[:1], "f", "").title == "[f] gpt: account 100%(x)s is dead: invalid_grant"
    assert compose(notices[:1], "f", "", chinese).title == "[f] gpt: 账号 100%(x)s 已失效：invalid_grant"
    assert compose(notices, "f", "", chinese).body.endswith("已解除，持续 2 小时 1 分钟：gpt: 账号 100%(x)s 曾失效")
    many = [*notices[:1], Notice.of("raised", ALERT, 1.0)]
    assert compose(many, "f", "", chinese).title == "[f] 2 条新告警"


def test_text_of_an_older_version_is_told_as_it_is():
    older = Notice.of("raised", Alert("quota", "", "k", "API key a has used 80 % of its quota", ""), 1.0)
    assert compose([older], "f", "", load_languages()["zh"].texts).title == "[f] API key a has used 80 % of its quota"


def test_text_of_others_is_one_bounded_line():
    hostile = Alert("account_dead", "", "c1", "account a\r\nBcc: everybody\x1b[31m" + "x" * 5000, "")
    message = compose([Notice.of("raised", hostile, 1.0)], "f", "")
    assert len(message.body.splitlines()) == 1 and "\x1b" not in message.body
    assert len(message.title) <= MAX_LINE_LENGTH + len("[f] ")


def test_notice_and_alert_survive_the_way_to_redis():
    notice = Notice.of("over", ALERT, 7.0)
    assert Notice.decode(notice.encode().encode()) == notice
    assert Alert.decode(ALERT.encode().encode()) == ALERT
