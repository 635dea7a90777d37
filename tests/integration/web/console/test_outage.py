"""What operators see of an upstream that is down, and of a farm that has no accounts yet."""

from flask.testing import FlaskClient
from redis import Redis

from shared import clock, keys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer


def test_outage_says_why_and_that_nothing_is_served_on_each_page(admin: FlaskClient, redis: Redis, ids: list[str]):
    redis.hset(keys.breaker("default"), mapping={"reason": "timeout", "since": 1, "probe_at": 2})
    overview = admin.get("/admin/?lang=en").text
    assert "the upstream is down (timeout): requests wait, and now and then one tries it again." in overview
    assert 'href="/admin/events?pool=default&amp;reach=1h"' in overview
    assert "<span>nothing is served now</span>" in overview
    assert (
        '<h2 translate="no">default</h2> <span class="state dead">upstream down</span>'
        in admin.get("/admin/queue").text
    )
    active = list(Credentials(redis).get_states("default").values()).count("active")
    accounts = admin.get("/admin/accounts").text
    assert accounts.count("it can serve, but the upstream fails for the whole pool") == active > 5


def test_account_in_service_needs_no_explanation(admin: FlaskClient, redis: Redis, ids: list[str]):
    redis.zadd(keys.PROCESSES, {"p1": clock.now() + 60})
    redis.set(keys.lease(ids[-1]), "p1:1")
    page = admin.get(f"/admin/accounts?lang=en&q={ids[-1]}").text
    assert '<td class="why"></td>' in page
    redis.delete(keys.lease(ids[-1]))
    assert "it can serve, but no worker has it yet" in admin.get(f"/admin/accounts?q={ids[-1]}").text
    # It was killed, and nobody has removed it.
    redis.zadd(keys.PROCESSES, {"p1": clock.now() - 60})
    assert "it can serve, but no worker process runs" in admin.get(f"/admin/accounts?q={ids[-1]}").text


def test_first_steps_come_first_while_there_are_no_accounts(admin: FlaskClient, redis: Redis):
    page = admin.get("/admin/?lang=en").text
    assert page.index(">Begin<") < page.index('id="live"')
    Unsealer("a secret key for tests").ensure_sealing_key(redis)
    Credentials(redis).add("default", "a-refresh-token-of-a-newcomer", "", "https://tokens.example")
    page = admin.get("/admin/").text
    assert page.index(">Begin<") > page.index('id="live"')
