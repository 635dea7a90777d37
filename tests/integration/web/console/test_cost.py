"""What pages read from Redis: of what they do not show, next to nothing."""

import re
import time

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.credentials.importing.entries import read_texts
from shared.credentials.store import Credentials
from shared.observability.request_log import ENTRY_FIELD
from tests.builders import build_log_entry
from web.console import usage
from web.console.parts import lists
from workers.process.usage_rollup import UsageRollup

#: Accounts that are added, of which no page shows one more.
FURTHER = 40


def count_commands(redis: Redis, admin: FlaskClient, path: str, name: str = "") -> int:
    """All commands, or those of a name."""
    redis.config_resetstat()
    assert admin.get(path).status_code == 200
    stats = redis.info("commandstats")
    return sum(stats[each]["calls"] for each in stats if name in ("", each.removeprefix("cmdstat_")))


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/admin/", 0),
        ("/admin/accounts", 1),
        ("/admin/accounts?sort=requests&order=desc", 1),
        ("/admin/accounts?q=*", 1),
        ("/admin/capacity", 1),
        ("/admin/keys", 0),
        ("/admin/plan", 0),
        ("/admin/queue", 1),
        ("/admin/usage?by=key", 0),
    ],
)
def test_further_account_costs_a_page_one_command_at_most(
    redis: Redis, admin: FlaskClient, ids: list[str], monkeypatch: pytest.MonkeyPatch, path: str, most: int
):
    monkeypatch.setattr(lists, "PAGE_SIZE", 10)
    before = count_commands(redis, admin, path)
    texts = read_texts([f"further-refresh-token-{number:05}" for number in range(FURTHER)])
    Credentials(redis).import_entries("default", list(texts), "reader")
    # A few commands depend on the second, as those of what is refreshed now and then.
    assert count_commands(redis, admin, path) <= before + most * FURTHER + 10


def test_usage_by_time_sums_up_the_days_that_it_does_not_show(
    redis: Redis, admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
):
    now, path = int(time.time()), "/admin/usage?by=time,credential&range=31d"
    for day in range(10, -1, -1):
        for number in range(3):
            entry = build_log_entry(number, credential=f"c{number}")
            redis.xadd(keys.REQUEST_LOG, {ENTRY_FIELD: entry.encode()}, id=f"{(now - 86_400 * day) * 1000}-*")
    UsageRollup(redis, 1000, 31, 31).roll_up()
    monkeypatch.setattr(usage, "SHOWN_ROWS", 2)
    page = admin.get(path).text
    assert "More rows are in the CSV." in page
    assert re.findall(r">(c\d)</a>", page) == ["c0", "c1"]
    assert re.findall(r"[\d,]+(?=<)", page.partition("<tfoot>")[2])[:2] == ["33", "0"]
    reads = count_commands(redis, admin, path, "hgetall")
    # Without a row to spare nothing is left out.
    monkeypatch.setattr(usage, "SHOWN_ROWS", 33)
    page = admin.get(path).text
    assert "More rows" not in page
    assert (page.count(">c2</a>"), page.count("<tr>")) == (11, 33 + 2)
    # The newest day, and all of them for their sums.
    assert reads <= count_commands(redis, admin, path, "hgetall") + 1
