"""Admin tokens are created, found by their secret, and revoked."""

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.admin_tokens import AdminTokens, warn_if_weak
from shared.api_keys.store import hash_secret
from shared.errors import Conflict, NotFound
from tests import internals


def test_first_admin_token_is_created_once_or_taken_as_given(redis: Redis):
    tokens = AdminTokens(redis)
    secret = tokens.ensure_first("")
    assert secret is not None
    assert tokens.find(secret) is not None
    assert tokens.ensure_first("") is None
    assert tokens.ensure_first("my own token") is None
    assert tokens.find("my own token") is not None
    assert tokens.find(secret) is None


def test_admin_tokens_are_revoked_one_by_one_except_the_last(redis: Redis):
    tokens = AdminTokens(redis)
    tokens.ensure_first("the first of them")
    secret, record = tokens.create("console", "viewer")
    assert (record.role, tokens.find(secret)) == ("viewer", record)
    assert [token.id for token in tokens.list()] == ["first", record.id]
    with pytest.raises(Conflict):
        tokens.revoke("first")
    tokens.revoke(record.id)
    assert tokens.find(secret) is None
    with pytest.raises(NotFound):
        tokens.get(record.id)
    assert secret not in repr(redis.hgetall("farm:admin-tokens"))


def test_admins_who_revoke_each_other_at_once_leave_one(redis: Redis):
    tokens = AdminTokens(redis)
    for name in ("a", "b"):
        tokens.create(name, "admin")
    first, second = (record.id for record in tokens.list())
    with pytest.raises(Conflict):
        internals.RacingAdminTokens(redis, before_revoking=lambda: tokens.revoke(second)).revoke(first)
    assert [record.id for record in tokens.list()] == [first]


def test_a_token_of_a_role_that_this_version_does_not_know_hides_no_other(redis: Redis):
    tokens = AdminTokens(redis)
    tokens.ensure_first("the first of them")
    secret, record = tokens.create("newer", "viewer")
    redis.hset(keys.ADMIN_TOKENS, hash_secret(secret), record.model_dump_json().replace("viewer", "auditor"))
    assert tokens.find(secret) is None
    assert [token.id for token in tokens.list()] == ["first"]


@pytest.mark.parametrize(
    ("configured", "is_weak"), [("", False), ("fifteen letters", True), ("sixteen letters!", False)]
)
def test_short_configured_token_is_warned_about(caplog: pytest.LogCaptureFixture, configured: str, is_weak: bool):
    warn_if_weak(configured)
    assert [record.action for record in caplog.records] == ["weak_admin_token"] * is_weak
    assert "letters" not in caplog.text


def test_configured_token_takes_the_place_of_the_first_even_if_it_is_known(redis: Redis):
    tokens = AdminTokens(redis)
    tokens.ensure_first("a token that has leaked")
    secret, _ = tokens.create("laptop", "viewer")
    tokens.ensure_first(secret)
    assert tokens.find("a token that has leaked") is None
    assert [(token.id, token.role) for token in tokens.list()] == [("first", "admin")]


def test_hint_shows_nothing_of_a_token_that_a_person_has_chosen(redis: Redis):
    tokens = AdminTokens(redis)
    tokens.ensure_first("correct horse")
    assert [token.hint for token in tokens.list()] == ["…"]


def test_token_of_another_farm_gets_an_id_of_its_own(redis: Redis):
    tokens = AdminTokens(redis)
    tokens.ensure_first("the token of the other farm")
    ((digest, encoded),) = redis.hgetall("farm:admin-tokens").items()
    redis.delete("farm:admin-tokens")
    tokens.ensure_first("the token of this farm")
    assert [tokens.restore(digest.decode(), encoded.decode()) for _ in range(2)] == [True, False]
    assert len({token.id for token in tokens.list()}) == 2
    tokens.ensure_first("the token of this farm")
    assert tokens.find("the token of the other farm") is not None
