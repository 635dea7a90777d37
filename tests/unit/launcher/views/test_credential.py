"""A credential is shown to people in sections, and to programs a line a fact."""

import re
from dataclasses import replace

import pytest

from launcher.views.credential import describe_left, format_share, list_facts, render_page
from launcher.views.credential_list import HEADINGS, build_row, drop_empty_columns
from launcher.views.times import format_age, format_moment
from shared.credentials.activity.activity import Activity, LastFailure, LastTest
from shared.credentials.activity.allowance import Allowance, Left
from shared.credentials.activity.attempt_counts import RecentAttempts
from shared.credentials.activity.description import CredentialDescription
from shared.credentials.evidence import UPSTREAM, Evidence
from shared.credentials.explanation import CAN_SERVE, explain_state
from shared.credentials.records import CredentialRecord, StateChange
from shared.pacing.limit_use import LimitUse

NOW = 1_800_000_000.0
LIMITED = Evidence(UPSTREAM, 429, "slow_down", 300.0)
RECORD = CredentialRecord(
    *("c0ffee", "default", "cooling"),
    account="alice@example.com",
    reason="rate_limited",
    evidence=LIMITED,
    until=NOW + 200,
    state_since=NOW - 100,
    refreshed_at=NOW - 3_700,
    rotated_at=NOW - 3_700,
    rotations=2,
    access_expires=NOW + 90_000,
    owner="host:1",
)
ACTIVITY = Activity(
    used_at=NOW - 100,
    in_flight=1,
    last_hour=RecentAttempts(97, 3, 0.412),
    last_failure=LastFailure(NOW - 100, "rate_limited", LIMITED),
    allowance=Allowance(NOW - 100, (Left("tokens", 12_000, 90_000), Left("requests", 0, 60, NOW + 200))),
    last_test=LastTest(NOW - 7_200, False, "account_suspended", 403),
)
DESCRIPTION = CredentialDescription(RECORD, ACTIVITY, explain_state("cooling", "rate_limited", LIMITED))
HISTORY = (StateChange(NOW - 100, "cooling", "rate_limited", LIMITED), StateChange(NOW - 500, "active", ""))


def read_page(description: CredentialDescription) -> str:
    """The page as a terminal shows it, without colours, in one line."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", render_page(description, HISTORY, NOW)).split())


@pytest.mark.parametrize(
    "words",
    [
        "c0ffee COOLING alice@example.com pool default",
        "since 2027-01-15 07:58:20Z (1 min ago) until 2027-01-15 08:03:20Z (in 3 min)",
        "why the upstream answered 429, with Retry-After or several times",
        "evidence upstream: HTTP 429 slow_down, wait 300 s",
        "next when the cooldown ends it takes requests again",
        "running a request last used 2027-01-15 07:58:20Z (1 min ago)",
        "last hour 97 served, 3 failed: 97 %, first byte 412 ms (median)",
        "12,000 of 90,000 tokens; 0 of 60 requests, reset 2027-01-15 08:03:20Z (in 3 min) (as of 1 min ago)",
        "(2 h ago) failed: HTTP 403 account_suspended",
        "rotated 2027-01-15 06:58:20Z (1 h ago), 2 times in all",
        "1 min ago cooling rate_limited (upstream: HTTP 429 slow_down, wait 300 s)",
    ],
)
def test_page_tells(words: str):
    assert words in read_page(DESCRIPTION)


def test_models_that_the_account_is_limited_for_are_named():
    record = replace(RECORD, resting_models={"gpt-limited": NOW + 60})
    limited = CredentialDescription(record, ACTIVITY, DESCRIPTION.explanation)
    assert "limited for model gpt-limited until 2027-01-15 08:01:00Z (in 1 min)" in read_page(limited)
    assert "limited for model gpt-limited until 2027-01-15 08:01:00Z" in list_facts(limited, ())
    row = dict(zip(HEADINGS, build_row(limited, NOW, is_short=True), strict=True))
    assert row["LIMITED FOR"] == "gpt-limited"


def test_limits_tell_what_is_left_and_until_when():
    minute = LimitUse("account_rpm", 10, True, 0, NOW + 20, NOW + 60)
    limited = replace(DESCRIPTION, limits=(minute, LimitUse("account_gap", 2.5, False, None)))
    assert (
        "limit account_rpm 0 left of 10, the account's own, a request fits 2027-01-15 08:00:20Z (in 20 s), "
        "all free 2027-01-15 08:01:00Z (in 1 min) account_gap 2.5 s"
    ) in read_page(limited)
    assert "limit: account_gap 2.5 s" in list(list_facts(limited, ()))


def test_page_of_a_new_credential_invents_nothing():
    new = CredentialRecord("c0ffee", "default", "active", state_since=NOW, added_at=NOW)
    page = read_page(CredentialDescription(new, Activity(), CAN_SERVE))
    for words in (
        "last used - last hour no attempts",
        "left the upstream does not say",
        "last test never",
        "rotated -",
    ):
        assert words in page
    assert "%" not in page


def test_facts_are_a_line_each_in_times_of_utc():
    facts = dict(line.partition(": ")[::2] for line in list_facts(DESCRIPTION, HISTORY))
    assert facts["until"] == "2027-01-15 08:03:20Z"
    assert facts["evidence"] == "upstream: HTTP 429 slow_down, wait 300 s"
    assert facts["last_failure"] == f"2027-01-15 07:58:20Z rate_limited ({LIMITED.describe()})"
    assert facts["last_hour"] == "97 served, 3 failed: 97 %, first byte 412 ms (median)"
    assert facts["label"] == "-"
    assert all("\x1b" not in line and " ago" not in line for line in list_facts(DESCRIPTION, HISTORY))


def test_row_has_a_cell_for_each_heading_and_masks_the_account():
    row = dict(zip(HEADINGS, build_row(DESCRIPTION, NOW, is_short=True), strict=True))
    assert row["LABEL"] == "a***e@example.com"
    assert (row["SAID"], row["UNTIL"], row["BUSY"], row["USED"]) == ("429 slow_down", "in 3 min", 1, "1 min ago")
    assert (row["SERVED"], row["FIRST MS"], row["LEFT"]) == ("97%", 412, "0/60 requests")


def test_row_shows_no_limit_that_has_been_reset_since():
    row = dict(zip(HEADINGS, build_row(DESCRIPTION, NOW + 300, is_short=True), strict=True))
    assert row["LEFT"] == "12000/90000 tokens"


def test_status_of_a_success_says_nothing_about_a_state():
    served = CredentialDescription(replace(RECORD, evidence=Evidence(UPSTREAM, 200)), ACTIVITY, CAN_SERVE)
    assert dict(zip(HEADINGS, build_row(served, NOW, is_short=True), strict=True))["SAID"] == "-"


def test_terminal_shows_no_column_without_a_figure():
    rows = [("c1", "default", "-"), ("c2", "default", "-")]
    assert drop_empty_columns(("ID", "POOL", "LABEL"), rows) == (("ID",), [("c1",), ("c2",)])
    assert drop_empty_columns(("ID", "POOL", "LABEL"), [("c1", "a", "-"), ("c2", "b", "x")])[0] == (
        "ID",
        "POOL",
        "LABEL",
    )
    assert drop_empty_columns(("ID", "POOL", "LABEL"), [])[0] == ("ID", "POOL", "LABEL")


def test_row_of_an_unused_credential_has_no_figures():
    new = CredentialDescription(replace(RECORD, state="active", evidence=Evidence()), Activity(), CAN_SERVE)
    row = dict(zip(HEADINGS, build_row(new, NOW, is_short=False), strict=True))
    assert {row[name] for name in ("SAID", "UNTIL", "BUSY", "USED", "SERVED", "FIRST MS", "LEFT")} == {"-"}


@pytest.mark.parametrize(
    ("at", "text"),
    [(0, "-"), (NOW, "0 s ago"), (NOW - 59, "59 s ago"), (NOW + 7_300, "in 2 h"), (NOW - 200_000, "2 d ago")],
)
def test_age_is_one_unit(at: float, text: str):
    assert format_age(at, NOW) == text


def test_moment_has_both():
    assert format_moment(NOW - 60, NOW) == "2027-01-15 07:59:00Z (1 min ago)"


@pytest.mark.parametrize(("share", "text"), [(1.0, "100 %"), (0.99999, "99.9 %"), (0.0, "0 %"), (0.5, "50 %")])
def test_share_is_100_only_when_it_is_all(share: float, text: str):
    assert format_share(share) == text


def test_limit_without_a_reset_names_none():
    assert describe_left(Left("tokens", 1_234.0), NOW) == "1,234 tokens"
