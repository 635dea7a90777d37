"""Each kind of credential serves requests from the simulator, and each form of token endpoint is understood."""

from contextlib import closing
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from redis import Redis

from shared import keys
from shared.credentials.importing.entries import read_entries
from shared.credentials.pool_rest import build_reader
from shared.credentials.store import Credentials
from shared.credentials.token_origin import TokenOrigins
from shared.credentials.unsealing import Unsealer
from shared.errors import FarmError, ForeignCredential, InvalidGrant, TokenEndpointDown, TokenError
from shared.observability.counters import Counters
from shared.observability.pool_status import read_pool_statuses
from shared.protocol.messages import Failure, FrameKind, Head
from shared.settings.schema import PoolSettings
from simulator.accounts import Accounts
from simulator.token_endpoint.credential_kinds import list_secrets
from tests.integration.harness import WorkerHarness, collect_frames
from tests.upstream import Upstream
from tests.waiting import eventually
from workers.credentials.token_endpoint.client import TokenEndpoint, drop_refresh_token
from workers.credentials.token_endpoint.token_response import TokenGrant
from workers.credentials.token_store import TokenStore
from workers.upstream.client import create_shared_session

KINDS = ("api_key", "client_credentials", "service_account")


def start(redis: Redis, redis_url: str, unsealer: Unsealer, upstream: Upstream, kind: str, **options: Any) -> Any:
    pool = {"credential_kind": kind}
    return closing(WorkerHarness(redis, redis_url, unsealer, upstream, pool, refusal_patience=1.5, **options))


@pytest.mark.parametrize("kind", KINDS)
def test_credential_of_each_kind_serves_a_request(redis, redis_url, unsealer, upstream, kind: str):
    with start(redis, redis_url, unsealer, upstream, kind) as harness:
        frames = collect_frames(harness.enqueue())
        assert [frame.kind for frame in frames][-1] == FrameKind.END
        assert Head.decode(frames[0].payload).status == 200
        assert harness.credential_state() == ("active", "")


def test_api_key_that_is_refused_twice_is_dead_while_another_serves(redis, redis_url, unsealer, upstream):
    upstream.accounts(kill=0)
    with start(redis, redis_url, unsealer, upstream, "api_key", credentials=2, max_attempts=4) as harness:
        requests = (harness.enqueue(f"req_{number}") for number in count())

        def is_dead_after_a_request() -> bool:
            assert collect_frames(next(requests))[-1].kind == FrameKind.END
            return harness.credential_state() == ("dead", "api_key_refused")

        eventually(is_dead_after_a_request)
        assert sorted(Credentials(redis).get_states("default").values()) == ["active", "dead"]


def test_one_refusal_of_an_api_key_is_forgotten_with_its_next_success(redis, redis_url, unsealer, upstream):
    upstream.faults(expired=1)
    with start(redis, redis_url, unsealer, upstream, "api_key", max_attempts=4) as harness:
        mailbox = harness.enqueue()
        record = keys.credential(harness.credential_id)
        eventually(lambda: redis.hexists(record, "refusals"))
        upstream.faults()
        assert collect_frames(mailbox)[-1].kind == FrameKind.END
        eventually(lambda: not redis.hexists(record, "refusals"))
        assert eventually(lambda: harness.credential_state()[0] == "active")


def test_an_upstream_that_refuses_every_api_key_kills_none_and_is_told_to_callers(redis, redis_url, unsealer, upstream):
    upstream.faults(expired=1)
    with start(redis, redis_url, unsealer, upstream, "api_key", credentials=3, max_attempts=9) as harness:
        failure = Failure.decode(collect_frames(harness.enqueue("req_0"), within=60)[-1].payload)
        assert (failure.status, failure.code) == (502, "upstream_auth_failed")
        read_rest = build_reader(redis)
        for number in range(1, 4):
            harness.enqueue(f"req_{number}")
        eventually(lambda: (rest := read_rest(("default", ""))) and rest.is_refused)
        assert redis.exists(keys.token_breaker("default"))
        (status,) = read_pool_statuses(redis, ["default"])
        assert status.warnings == ["its upstream refuses several of its API keys and accepts none"]
        states = {(record.state, record.reason) for record in Credentials(redis).list(["default"])}
        assert states == {("cooling", "api_keys_refused")}

        upstream.faults()
        assert collect_frames(harness.enqueue("req_4"), within=60)[-1].kind == FrameKind.END
        eventually(lambda: not redis.exists(keys.token_breaker("default")))
        assert read_rest(("default", "")) is None


# Token endpoints


def connect(upstream: Upstream, **settings: Any) -> TokenEndpoint:
    pool = PoolSettings(**{"token_url": upstream.token_url, **settings})
    return TokenEndpoint(pool, create_shared_session(upstream.token_url, 1))


def secret_of(kind: str, upstream: Upstream) -> str:
    (entry,) = read_entries(list_secrets(Accounts(1), kind, upstream.token_url), kind)
    return entry.secret


@pytest.mark.parametrize("auth", ["basic", "body"])
def test_client_authenticates_in_the_way_that_the_endpoint_accepts(upstream: Upstream, auth: str):
    upstream.accounts(rotate=False)
    upstream.token_rules(auth=auth, client_id="app", client_secret="a:b/c d", form=True)
    other = {"basic": "body", "body": "basic"}[auth]
    client = {"client_id": "app", "client_secret": "a:b/c d"}
    for kind in ("refresh_token", "client_credentials", "service_account"):
        secret = secret_of(kind, upstream)
        for token_auth in ("auto", auth):
            grant = connect(upstream, credential_kind=kind, token_auth=token_auth, **client).refresh(secret)
            assert grant.access_token.startswith("sim-at-")
        with pytest.raises(TokenError, match="invalid_client"):
            connect(upstream, credential_kind=kind, token_auth=other, **client).refresh(secret)


def test_client_with_a_private_key_is_accepted_by_its_assertion(upstream: Upstream):
    upstream.accounts(rotate=False)
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    upstream.token_rules(auth="private_key_jwt", client_id="app", client_key=public)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    settings = {"client_id": "app", "token_auth": "private_key_jwt", "token_auth_key": pem}
    for request in ("form", "json"):
        endpoint = connect(upstream, token_request=request, **settings)
        assert endpoint.refresh(secret_of("refresh_token", upstream)).access_token
    other = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(TokenError, match="invalid_client"):
        connect(upstream, **settings | {"token_auth_key": other.decode()}).refresh(secret_of("refresh_token", upstream))


def test_extra_parameters_reach_the_endpoint(upstream: Upstream):
    parameters = {"audience": "https://api.example", "resource": "urn:x"}
    upstream.token_rules(parameters=parameters)
    for kind in ("client_credentials", "service_account", "refresh_token"):
        secret = secret_of(kind, upstream)
        with pytest.raises(TokenError, match="invalid_target"):
            connect(upstream, credential_kind=kind).refresh(secret)
        assert connect(upstream, credential_kind=kind, token_parameters=parameters).refresh(secret).access_token


def test_a_credential_that_the_endpoint_does_not_know_is_refused_as_such(upstream: Upstream):
    for kind in ("client_credentials", "service_account"):
        (entry,) = read_entries(list_secrets(Accounts(1, seed="another"), kind, upstream.token_url), kind)
        with pytest.raises(InvalidGrant):
            connect(upstream, credential_kind=kind).refresh(entry.secret)


def test_a_refresh_token_that_comes_with_another_kind_is_dropped():
    """Such an endpoint would replace the client's secret with it."""
    rotated = TokenGrant("at", 60, "rt-1")
    assert drop_refresh_token(rotated).refresh_token is None
    with pytest.raises(TokenEndpointDown):
        drop_refresh_token(TokenGrant("", 0, "rt-1", "no access token"))


# Binding


def test_a_credential_is_never_sent_as_another_kind(redis: Redis, unsealer: Unsealer):
    """A refresh token in a pool that takes API keys by now would be shown to the upstream."""
    settings = {"token_url": "https://login.example/token", "upstream_url": "https://api.example/v1"}
    before, after = PoolSettings(**settings), PoolSettings(**settings, credential_kind="api_key")
    store, origins = Credentials(redis), TokenOrigins(redis)
    credential_id, _ = store.add("default", "rt", token_origin="https://login.example")
    assert origins.reconcile([after]) == {"default": (1, 0)}
    record = store.get(credential_id, ["default"])
    assert (record.state, record.reason) == ("foreign", "is of kind refresh_token, but its pool takes api_key")
    with pytest.raises(ForeignCredential):
        TokenStore(redis, unsealer, Counters(), lambda _: ("api_key", "")).load(credential_id)
    with pytest.raises(FarmError, match="takes api_key"):
        origins.adopt(after, credential_id)
    assert origins.reconcile([before]) == {"default": (0, 1)}


def test_api_keys_are_bound_to_their_upstream(redis: Redis, unsealer: Unsealer):
    pool = PoolSettings(upstream_url="https://api.example/v1", credential_kind="api_key")
    Credentials(redis).add("default", "sk-1", token_origin="https://api.example", kind="api_key")
    assert TokenOrigins(redis).reconcile([pool]) == {}
    elsewhere = PoolSettings(upstream_url="https://other.example/v1", credential_kind="api_key")
    assert TokenOrigins(redis).reconcile([elsewhere]) == {"default": (1, 0)}
