import pytest
from redis import Redis

from shared import admin_token
from shared.api_keys import ApiKeys, digest
from shared.errors import ApiError, FarmError, NotFound
from tests.integration.test_credentials import everything
from web.auth import Authenticator


def test_a_key_is_shown_once_and_kept_as_a_hash(redis: Redis):
    secret, key = ApiKeys(redis).create("mine")
    assert secret.startswith("sk-")
    assert secret not in everything(redis)
    assert ApiKeys(redis).find(digest(secret)) == key
    assert [one.name for one in ApiKeys(redis).list()] == ["mine"]


def test_a_given_key_is_made_once(redis: Redis):
    store = ApiKeys(redis)
    assert store.ensure("sk-my-own-long-key", "x") == store.ensure("sk-my-own-long-key", "y")
    assert store.ensure("sk-short", "x").enabled
    with pytest.raises(FarmError, match="printable"):
        store.ensure("sk-with a space", "x")


def test_a_revoked_key_is_refused(redis: Redis):
    store = ApiKeys(redis)
    secret, key = store.create("mine")
    assert Authenticator(store).caller(f"Bearer {secret}").id == key.id
    assert not store.revoke(key.id).enabled
    with pytest.raises(ApiError) as caught:
        Authenticator(store).caller(f"Bearer {secret}")
    assert caught.value.status == 401
    with pytest.raises(NotFound):
        store.revoke("nope")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer sk-unknown"])
def test_without_a_right_key_nobody_is_let_in(redis: Redis, header: str):
    with pytest.raises(ApiError) as caught:
        Authenticator(ApiKeys(redis)).caller(header)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_a_key_is_looked_up_once_for_many_requests(redis: Redis):
    store = ApiKeys(redis)
    secret, _ = store.create("mine")
    authenticator = Authenticator(store)
    authenticator.caller(f"Bearer {secret}")
    before = redis.info("commandstats")["cmdstat_hget"]["calls"]
    for _ in range(50):
        authenticator.caller(f"Bearer {secret}")
    assert redis.info("commandstats")["cmdstat_hget"]["calls"] == before


def test_the_admin_token_is_made_once_or_taken_as_given(redis: Redis):
    made = admin_token.ensure(redis, "")
    assert made
    assert admin_token.matches(redis, made)
    assert admin_token.ensure(redis, "") is None
    assert admin_token.ensure(redis, "my own token") is None
    assert admin_token.matches(redis, "my own token")
    assert not admin_token.matches(redis, made)
    assert made not in everything(redis)
