"""Callers authenticate with an API key."""

import gevent
import pytest
from redis import Redis

from shared.api_keys.store import ApiKeys
from shared.errors import ApiError, NotFound
from shared.protocol.credential_operations import CredentialOperations
from shared.redis_connection.auto_pipeline import AutoPipeline
from web.access.authenticator import Authenticator
from web.access.private_callers import PrivateCallers

ADDRESS = "192.0.2.1"


def build_authenticator(redis: Redis) -> Authenticator:
    """One that accepts no refresh tokens."""
    return Authenticator(ApiKeys(redis), PrivateCallers(redis, (), CredentialOperations(redis)))


def test_revoked_key_is_refused(redis: Redis):
    store = ApiKeys(redis)
    secret, key = store.create("mine")
    assert build_authenticator(redis).authenticate([secret], ADDRESS).id == key.id
    assert not store.revoke(key.id).enabled
    with pytest.raises(ApiError) as caught:
        build_authenticator(redis).authenticate([secret], ADDRESS)
    assert caught.value.status == 401
    with pytest.raises(NotFound):
        store.revoke("nope")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"enabled": False}, 401, "invalid_api_key"),
        ({"expires_at": 1.0}, 401, "api_key_expired"),
        ({"networks": ["198.51.100.0/24", "2001:db8::/32"]}, 403, "ip_not_authorized"),
    ],
)
def test_disabled_expired_or_foreign_key_is_refused(redis: Redis, fields: dict, status: int, code: str):
    store = ApiKeys(redis)
    secret, _ = store.create("mine", **fields)
    with pytest.raises(ApiError) as caught:
        build_authenticator(redis).authenticate([secret], ADDRESS)
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("secrets", [[], ["sk-unknown"], ["sk-unknown", "sk-other"]])
def test_missing_or_unknown_key_is_refused(redis: Redis, secrets: list[str]):
    with pytest.raises(ApiError) as caught:
        build_authenticator(redis).authenticate(secrets, ADDRESS)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_first_known_key_counts(redis: Redis):
    store = ApiKeys(redis)
    (secret, key), (disabled, _) = store.create("mine"), store.create("old", enabled=False)
    authenticator = build_authenticator(redis)
    assert authenticator.authenticate(["dummy", secret, disabled], ADDRESS).id == key.id
    with pytest.raises(ApiError):
        authenticator.authenticate([disabled, secret], ADDRESS)


def test_key_is_looked_up_once_for_many_requests(redis: Redis):
    store = ApiKeys(redis)
    secret, _ = store.create("mine")
    authenticator = build_authenticator(redis)
    authenticator.authenticate([secret], ADDRESS)
    before = redis.info("commandstats")["cmdstat_hget"]["calls"]
    for _ in range(50):
        authenticator.authenticate([secret], ADDRESS)
    assert redis.info("commandstats")["cmdstat_hget"]["calls"] == before


def test_a_flood_of_wrong_keys_takes_one_connection(redis: Redis):
    keys = ApiKeys(redis, AutoPipeline(redis))
    secret, key = keys.create("good")
    authenticator = Authenticator(keys, PrivateCallers(redis, (), CredentialOperations(redis)))
    connections = redis.info("stats")["total_connections_received"]

    def try_wrong(number: int) -> int:
        with pytest.raises(ApiError) as caught:
            authenticator.authenticate([f"wrong-{number}"], "127.0.0.1")
        return caught.value.status

    flood = [gevent.spawn(try_wrong, number) for number in range(2000)]
    good = gevent.spawn(authenticator.authenticate, [secret], "127.0.0.1")
    assert {greenlet.get(timeout=30) for greenlet in flood} == {401}
    assert good.get(timeout=30) == key
    assert redis.info("stats")["total_connections_received"] - connections <= 1


def test_former_secret_of_a_rotated_key_opens_it_until_its_time_is_over(redis: Redis):
    store = ApiKeys(redis)
    former, key = store.create("mine")
    secret, _ = store.rotate(key.id, 3600)
    authenticator = build_authenticator(redis)
    assert [authenticator.authenticate([each], ADDRESS).id for each in (former, secret)] == [key.id, key.id]
    store.end_superseded(key.id)
    with pytest.raises(ApiError) as caught:
        build_authenticator(redis).authenticate([former], ADDRESS)
    assert (caught.value.status, caught.value.code) == (401, "api_key_expired")
    assert build_authenticator(redis).authenticate([secret], ADDRESS).id == key.id
