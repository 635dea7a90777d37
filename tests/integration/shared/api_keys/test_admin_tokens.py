"""Admin tokens are created, found by their secret, and revoked."""

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.admin_tokens import AdminTokens
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
