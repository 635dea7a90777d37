"""One credential per account: a newer token replaces the old one, wherever it comes from (I1)."""

import gevent
import pytest
from redis import Redis

from shared import keys
from shared.credentials.sealing import fingerprint
from shared.credentials.store import Credentials
from shared.errors import LeaseLost, TokenEndpointDown
from shared.observability.counters import Counters
from tests.redis_dump import dump_redis
from tests.token_refresher import build_refresher
from tests.upstream import first_refresh_tokens
from workers.credentials.access_token import AccessToken, RefreshServices
from workers.credentials.leases import Leases
from workers.credentials.token_breaker import TokenBreaker
from workers.credentials.token_endpoint.token_response import TokenGrant
from workers.sign_in.accounts import AccountKnown

TOKENS = first_refresh_tokens(6)


def import_and_refresh(harness, redis: Redis, token: str) -> str:
    """Adds a refresh token, and refreshes it as its worker does. Raises LeaseLost."""
    credential_id, _ = Credentials(redis).add("default", token)
    refresh(harness, redis, credential_id)
    return credential_id


def refresh(harness, redis: Redis, credential_id: str) -> None:
    (lease,) = Leases(redis, "here").claim("default", [credential_id], 1)
    counters = Counters()
    breaker = TokenBreaker(redis, "default", "here", counters)
    refresher = build_refresher(
        redis,
        harness.token_store,
        harness.endpoint,
        breaker,
        counters,
        patience=1.0,
        learn_account=harness.accounts.learn,
    )
    AccessToken(lease, breaker, RefreshServices(harness.token_store, refresher, {"default": 1}, counters, 1.0)).get()


def test_signing_in_again_replaces_the_token_and_adds_nothing(harness):
    first, second = harness.sign_in(1), harness.sign_in(1)
    assert (first.outcome, second.outcome) == ("added", "replaced")
    assert first.credential_id == second.credential_id
    (credential,) = harness.credentials()
    assert credential.rotations == 1


def test_account_of_an_imported_token_is_known_after_its_first_refresh(harness, redis):
    credential_id = import_and_refresh(harness, redis, TOKENS[2])
    (credential,) = harness.credentials()
    assert (credential.subject, credential.account) == ("account-2", "account2@simulator.example")
    assert harness.sign_in(2).credential_id == credential_id


def test_imported_double_gives_its_token_to_the_account_and_stops_before_it_serves(harness, redis):
    done = harness.sign_in(3)
    before = harness.stored_token(done.credential_id)
    with pytest.raises(AccountKnown):
        import_and_refresh(harness, redis, TOKENS[3])
    (credential,) = harness.credentials()
    assert credential.id == done.credential_id
    newest = harness.stored_token(credential.id)
    assert newest.startswith("sim-rt-3-1-"), "the import's rotated token is the newest"
    assert harness.token_store.load_previous(credential.id) == before
    refresh(harness, redis, credential.id)
    assert Credentials(redis).add("default", TOKENS[3]) == (credential.id, False), "the file is imported at each start"


def test_token_file_that_still_has_a_replaced_token_adds_nothing(harness, redis):
    credential_id = import_and_refresh(harness, redis, TOKENS[4])
    imported_and_rotated = [TOKENS[4], harness.stored_token(credential_id)]
    assert harness.sign_in(4).credential_id == credential_id
    for token in imported_and_rotated:
        assert Credentials(redis).add("default", token) == (credential_id, False)
    assert len(harness.credentials()) == 1


@pytest.mark.parametrize(("state", "after"), [("dead", "active"), ("disabled", "disabled"), ("cooling", "cooling")])
def test_signing_in_revives_a_dead_account_and_no_other(harness, redis, state, after):
    done = harness.sign_in(1)
    Credentials(redis).set_state("default", done.credential_id, state, "a test")
    redis.hset(keys.credential(done.credential_id), "refusals", "of the former token")
    assert harness.sign_in(1).outcome == "replaced"
    assert harness.credentials()[0].state == after
    assert not redis.hexists(keys.credential(done.credential_id), "refusals")


def test_removed_account_leaves_nothing_and_may_sign_in_again(harness, redis):
    tokens = []
    for _ in range(3):
        first = harness.sign_in(1)
        tokens.append(harness.stored_token(first.credential_id))
    assert Credentials(redis).remove("default", first.credential_id)
    redis.delete(*redis.keys("farm:sign-in*"))
    assert "farm:accounts" not in (dump := dump_redis(redis))
    assert not [token for token in tokens if fingerprint(token) in dump]
    assert not redis.exists(keys.fingerprints("default"))
    again = harness.sign_in(1)
    assert (again.outcome, len(harness.credentials())) == ("added", 1)


def test_two_sign_ins_of_one_account_at_once_make_one_credential(harness):
    grants = [TokenGrant(f"at-{number}", 60, f"rt-{number}") for number in range(8)]
    identity = harness.provider.fetch_identity(harness.token_store.load(harness.sign_in(5).credential_id)[1])
    jobs = [gevent.spawn(harness.accounts.add, "default", grant, identity, "", "") for grant in grants]
    ids = {job.get()[0] for job in jobs}
    assert ids == {credential.id for credential in harness.credentials()}
    assert len(ids) == 1


def test_retried_store_of_a_sign_in_is_still_an_addition(harness, monkeypatch):
    """A disk that is slow to confirm has the script run again."""
    write = harness.token_store.durable_writer.write

    def write_twice(add_command):
        write(add_command)
        return write(add_command)

    monkeypatch.setattr(harness.token_store.durable_writer, "write", write_twice)
    assert harness.sign_in(1).outcome == "added"
    again = harness.sign_in(1)
    assert (again.outcome, harness.credentials()[0].rotations) == ("replaced", 1)


def test_account_that_is_not_known_yet_serves_all_the_same(start_sign_ins, redis):
    """Its upstream has no userinfo endpoint, or that fails: the token is good."""
    for issuer in ("", "http://127.0.0.1:1"):
        harness = start_sign_ins(issuer=issuer)
        credential_id = import_and_refresh(harness, redis, TOKENS[0 if issuer else 1])
        assert Credentials(redis).get(credential_id, ["default"]).refreshed_at


def test_double_ends_as_a_lost_lease():
    """So that its requests are retried on another credential, and nothing is blamed."""
    assert issubclass(AccountKnown, LeaseLost)


def test_issuer_alone_is_enough_to_sign_in_and_to_refresh(start_sign_ins, redis):
    harness = start_sign_ins(token_url="")
    done = harness.sign_in(0)
    assert (done.outcome, harness.credentials()[0].token_origin) == ("added", harness.upstream.base)
    before = harness.upstream.counters()["refreshes"]
    redis.hdel(keys.credential(done.credential_id), "access")
    refresh(harness, redis, done.credential_id)
    assert harness.upstream.counters()["refreshes"] == before + 1


def test_issuer_that_can_not_be_reached_kills_no_credential(start_sign_ins, redis):
    harness = start_sign_ins(token_url="", issuer="http://127.0.0.1:1")
    with pytest.raises(TokenEndpointDown, match=r"127\.0\.0\.1:1/\.well-known"):
        import_and_refresh(harness, redis, TOKENS[5])
    assert harness.credentials()[0].state == "active"
