"""The history of a credential has an entry for each new state, reason and evidence, and none for what is the same."""

import pytest
from redis import Redis

from shared import keys
from shared.credentials.evidence import NO_EVIDENCE, TOKEN_ENDPOINT, UPSTREAM, Evidence
from shared.credentials.records import StateChange
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from workers.credentials.leases import Leases
from workers.credentials.token_endpoint.token_response import TokenGrant
from workers.credentials.token_store import TokenStore

LIMITED, FORBIDDEN = Evidence(UPSTREAM, 429, "slow_down", 30.0), Evidence(UPSTREAM, 403, "suspended")


@pytest.fixture
def store(redis: Redis, unsealer: Unsealer) -> Credentials:
    return Credentials(redis)


@pytest.fixture
def credential_id(store: Credentials) -> str:
    return store.add("default", "token")[0]


def read_changes(store: Credentials, credential_id: str) -> list[tuple[str, str, Evidence]]:
    """Oldest first."""
    return [(change.state, change.reason, change.evidence) for change in store.get_history(credential_id)[::-1]]


def test_new_reason_or_evidence_within_a_state_is_an_entry(store: Credentials, credential_id: str):
    for reason, evidence in (
        ("rate_limited", LIMITED),
        ("rate_limited", LIMITED),
        ("refused", FORBIDDEN),
        ("refused", Evidence(UPSTREAM, 401)),
    ):
        until = 10.0 + len(read_changes(store, credential_id))
        assert store.set_state("default", credential_id, "cooling", reason, until, evidence)
    assert read_changes(store, credential_id) == [
        ("cooling", "rate_limited", Evidence(UPSTREAM, 429, "slow_down")),
        ("cooling", "refused", FORBIDDEN),
        ("cooling", "refused", Evidence(UPSTREAM, 401)),
    ]
    assert store.get(credential_id, ["default"]).evidence == Evidence(UPSTREAM, 401)


def test_state_since_stays_while_state_and_reason_are_the_same(store: Credentials, credential_id: str):
    store.set_state("default", credential_id, "cooling", "rate_limited", 10.0, LIMITED)
    since = store.get(credential_id, ["default"]).state_since
    store.set_state("default", credential_id, "cooling", "rate_limited", 20.0, LIMITED)
    record = store.get(credential_id, ["default"])
    assert (record.state_since, record.until, record.evidence) == (since, 20.0, LIMITED)
    store.set_state("default", credential_id, "cooling", "refused", 30.0)
    assert store.get(credential_id, ["default"]).state_since > since


def test_shorter_cooldown_leaves_the_evidence_of_the_longer_one(store: Credentials, credential_id: str):
    store.set_state("default", credential_id, "cooling", "rate_limited", 20.0, LIMITED)
    store.set_state("default", credential_id, "cooling", "refused", 10.0, FORBIDDEN)
    assert store.get(credential_id, ["default"]).evidence == LIMITED


def test_enabled_credential_has_no_evidence_any_more(store: Credentials, credential_id: str):
    store.set_state(
        "default", credential_id, "dead", "invalid_grant", 0, Evidence(TOKEN_ENDPOINT, 400, "invalid_grant")
    )
    store.enable("default", credential_id)
    assert store.get(credential_id, ["default"]).evidence == NO_EVIDENCE


def test_suspended_credential_gets_its_evidence_back(store: Credentials, credential_id: str):
    store.set_state("default", credential_id, "cooling", "rate_limited", 99.0, LIMITED)
    store.suspend("default", credential_id, "being moved")
    store.suspend("default", credential_id, "being moved")
    assert store.get(credential_id, ["default"]).evidence == NO_EVIDENCE
    assert store.resume("default", credential_id)
    record = store.get(credential_id, ["default"])
    assert (record.state, record.reason, record.until, record.evidence) == ("cooling", "rate_limited", 99.0, LIMITED)
    assert [state for state, _, _ in read_changes(store, credential_id)] == ["cooling", "disabled", "cooling"]


def test_grant_that_revives_a_dead_credential_is_in_its_history(redis, unsealer, store, credential_id: str):
    (lease,) = Leases(redis, "here").claim("default", [credential_id], 1)
    store.set_state("default", credential_id, "dead", "invalid_grant", 0, Evidence(TOKEN_ENDPOINT, 400))
    TokenStore(redis, unsealer, Counters()).store(lease, "token", TokenGrant("access", 60.0, "rotated"))
    assert read_changes(store, credential_id)[-1] == ("active", "granted a token meanwhile", NO_EVIDENCE)
    record = store.get(credential_id, ["default"])
    assert (record.state, record.reason, record.evidence) == ("active", "", NO_EVIDENCE)
    assert record.rotated_at == pytest.approx(record.refreshed_at)


def test_grant_without_rotation_leaves_the_time_of_the_last_one(redis, unsealer, store, credential_id: str):
    (lease,) = Leases(redis, "here").claim("default", [credential_id], 1)
    TokenStore(redis, unsealer, Counters()).store(lease, "token", TokenGrant("access", 60.0, None))
    record = store.get(credential_id, ["default"])
    assert record.refreshed_at > record.rotated_at == 0


def test_entry_of_an_earlier_version_has_no_evidence(redis: Redis, store: Credentials, credential_id: str):
    redis.xadd(keys.history(credential_id), {"state": "dead", "reason": "invalid_grant"}, id="1000-0")
    assert store.get_history(credential_id) == (StateChange(1.0, "dead", "invalid_grant"),)
