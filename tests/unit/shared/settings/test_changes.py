"""What a reload would change is told without secrets."""

from dataclasses import replace

from shared.settings.changes import find_changes
from shared.settings.schema import PoolSettings, Settings

POOL = PoolSettings(upstream_url="https://up.example/v1", client_secret="first-secret")
RUNNING = Settings(pools=(POOL,), drain=30.0, port=8000, redis_url="redis://:first-word@host/0")


def describe(wanted: Settings) -> list[str]:
    changes = find_changes(RUNNING, wanted)
    text = repr(changes)
    assert all(secret not in text for secret in ("first-secret", "other-secret", "first-word", "other-word"))
    return [f"{c.kind} {c.pool}.{c.name} {c.before}>{c.after}{' restart' * c.needs_restart}" for c in changes]


def test_same_settings_change_nothing():
    assert describe(replace(RUNNING)) == []


def test_changes_of_the_farm_and_of_pools():
    pool = replace(POOL, models=("gpt-a", "gpt-b"), account_rpm=10)
    assert describe(replace(RUNNING, drain=5.0, port=9000, pools=(pool,))) == [
        "changed .port 8000>9000 restart",
        "changed .drain 30>5",
        "changed default.models >gpt-a,gpt-b",
        "changed default.account_rpm >10",
    ]


def test_pools_that_come_and_go():
    assert describe(replace(RUNNING, pools=(PoolSettings(name="new"),))) == ["added new. >", "removed default. >"]


def test_replaced_secrets_are_told_and_not_shown():
    pool = replace(POOL, client_secret="other-secret", upstream_url="https://me:other-word@up.example/v1")
    assert describe(replace(RUNNING, redis_url="redis://:other-word@host/0", pools=(pool,))) == [
        "changed .redis_url set>set (another one) restart",
        "changed default.upstream_url https://up.example/v1>https://***@up.example/v1",
        "changed default.client_secret set>set (another one)",
    ]
