"""A credential is used with the token endpoint that it was given for, and with no other."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis

from launcher.processes import bundled_simulator
from shared import keys
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.credentials.token_origin import (
    SIMULATOR_ORIGIN,
    TokenOrigins,
    compute_token_origin,
    origin_for_new_tokens,
)
from shared.credentials.unsealing import Unsealer
from shared.errors import FarmError, ForeignCredential
from shared.observability.counters import Counters
from shared.ready_flag import ReadyFlag
from shared.settings.schema import PoolSettings, Settings
from simulator.accounts import Accounts
from tests import internals
from workers.credentials.leases import Candidate, Leases
from workers.credentials.token_store import TokenStore
from workers.process.worker_process import WorkerProcess
from workers.process.worker_set import WorkerSet
from workers.process_slot import SpawnInfo

HOME = PoolSettings(token_url="https://login.example/oauth/token")
ELSEWHERE = PoolSettings(token_url="https://login.other.example/oauth/token")
SIMULATOR = PoolSettings(token_url="http://127.0.0.1:1/oauth/token", simulator=True)


@pytest.fixture
def store(redis: Redis, unsealer: Unsealer) -> Credentials:
    return Credentials(redis)


def add(store: Credentials, pool: PoolSettings = HOME, token: str = "a-token") -> str:
    return store.add(pool.name, token, token_origin=origin_for_new_tokens(pool))[0]


def get(store: Credentials, credential_id: str) -> CredentialRecord:
    return store.get(credential_id, ["default"])


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Login.Example/oauth/token", "https://login.example"),
        ("https://login.example:443/other/path", "https://login.example"),
        ("http://login.example", "http://login.example"),
        ("https://login.example:8443/token", "https://login.example:8443"),
        ("http://[::1]:9000/token", "http://[::1]:9000"),
        ("", ""),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, origin: str):
    assert compute_token_origin(PoolSettings(token_url=url)) == origin


def test_credential_of_another_endpoint_is_foreign_until_its_endpoint_is_back(redis: Redis, store: Credentials):
    origins, credential_id = TokenOrigins(redis), add(store)
    store.set_label("default", credential_id, "mine")
    before = get(store, credential_id)
    assert origins.reconcile([HOME]) == {}
    assert origins.reconcile([ELSEWHERE]) == {"default": (1, 0)}
    foreign = get(store, credential_id)
    assert foreign.state == "foreign"
    assert [part for part in ("https://login.example,", "adopt", credential_id) if part not in foreign.reason] == []
    assert origins.reconcile([ELSEWHERE]) == {}
    assert origins.reconcile([HOME]) == {"default": (0, 1)}
    after = get(store, credential_id)
    assert (after.state, after.reason) == ("active", "")
    assert (after.label, after.added_at, after.token_origin) == (before.label, before.added_at, "https://login.example")


@pytest.mark.parametrize("state", ["disabled", "dead"])
def test_foreign_credential_that_is_out_of_service_stays_so(redis: Redis, store: Credentials, state):
    credential_id = add(store)
    store.set_state("default", credential_id, state, "why")
    for pool in (ELSEWHERE, HOME):
        TokenOrigins(redis).reconcile([pool])
        assert (get(store, credential_id).state, get(store, credential_id).reason) == (state, "why")


def test_credential_without_an_origin_adopts_its_pools_but_not_the_simulators(redis: Redis, store: Credentials):
    credential_id, _ = store.add("default", "of an older version")
    TokenOrigins(redis).reconcile([SIMULATOR])
    assert get(store, credential_id).state == "foreign"
    assert "simulator" in get(store, credential_id).reason
    TokenOrigins(redis).reconcile([HOME])
    assert (get(store, credential_id).state, get(store, credential_id).token_origin) == (
        "active",
        "https://login.example",
    )
    TokenOrigins(redis).reconcile([ELSEWHERE])
    assert get(store, credential_id).state == "foreign"


def test_operator_adopts_a_credential(redis: Redis, store: Credentials):
    credential_id, origins = add(store), TokenOrigins(redis)
    redis.hset(keys.credential(credential_id), "access", "issued by the other endpoint")
    origins.reconcile([ELSEWHERE])
    origins.adopt(ELSEWHERE, credential_id)
    assert (get(store, credential_id).state, get(store, credential_id).reason) == ("active", "")
    assert redis.hget(keys.credential(credential_id), "access") is None
    assert origins.reconcile([ELSEWHERE]) == {}


def test_adopting_without_a_known_endpoint_leaves_the_binding_to_the_workers(redis: Redis, store: Credentials):
    credential_id, origins = add(store), TokenOrigins(redis)
    origins.reconcile([ELSEWHERE])
    origins.adopt(PoolSettings(), credential_id)
    origins.reconcile([ELSEWHERE])
    assert get(store, credential_id).state == "active"
    assert get(store, credential_id).token_origin == "https://login.other.example"


def test_worker_claims_no_credential_of_another_endpoint(redis: Redis, store: Credentials):
    mine, old = add(store), store.add("default", "of an older version")[0]
    leases = Leases(redis, "a")
    assert leases.claim("default", [mine], 9, token_origin=compute_token_origin(ELSEWHERE)) == []
    assert leases.claim("default", [mine, old], 9, token_origin=SIMULATOR_ORIGIN) == []
    assert len(leases.claim("default", [mine, old], 9, token_origin=compute_token_origin(HOME))) == 2
    assert get(store, old).token_origin == "https://login.example"


def test_tokens_are_not_read_for_another_endpoint(redis: Redis, store: Credentials, unsealer: Unsealer):
    credential_id = add(store)
    for pool in (ELSEWHERE, SIMULATOR):
        with pytest.raises(ForeignCredential):
            TokenStore(redis, unsealer, Counters(), lambda _, pool=pool: ("", compute_token_origin(pool))).load(
                credential_id
            )  # type: ignore[misc]
    assert (
        TokenStore(redis, unsealer, Counters(), lambda _: ("", compute_token_origin(HOME))).load(credential_id)[0]
        == "a-token"
    )


def test_simulators_credentials_are_told_by_their_origin(redis: Redis, store: Credentials):
    bundled_simulator.require_simulator_allowed(Settings(), redis)
    bundled_simulator.import_simulated(redis, "default")
    of_an_older_version, _ = store.add("default", Accounts(1).first_refresh_tokens()[0], "simulator")
    redis.hset(keys.credential(of_an_older_version), "token_origin", "")
    bundled_simulator.require_simulator_allowed(Settings(), redis)
    labelled = store.add("default", "of a person", "simulator")[0]
    elsewhere = store.add("no-longer-configured", "another")[0]
    with pytest.raises(FarmError, match="has 2 credentials"):
        bundled_simulator.require_simulator_allowed(Settings(), redis)
    bundled_simulator.remove_simulated(redis)
    assert [record.id for record in store.list(["default", "no-longer-configured"])] == [labelled, elsewhere]


def test_simulator_is_refused_beside_settings_of_an_upstream(redis: Redis, unsealer: Unsealer):
    for pool in (PoolSettings(token_url="https://login.example"), PoolSettings(refresh_tokens_file="tokens.txt")):
        with pytest.raises(FarmError, match="FARM_UPSTREAM_URL is not"):
            bundled_simulator.require_simulator_allowed(Settings(pools=(pool,)), redis)


def test_worker_process_reads_no_token_of_another_endpoint(
    redis: Redis, redis_url: str, store: Credentials, unsealer: Unsealer
):
    credential_id, ready = add(store), ReadyFlag()
    pool = replace(ELSEWHERE, upstream_url="https://api.other.example/v1")
    info = SpawnInfo("a", "", True, 1, False, ready)
    process = WorkerProcess(Settings(redis_url=redis_url, pools=(pool,)), unsealer, info)
    with pytest.raises(ForeignCredential):
        internals.token_store(process).load(credential_id)


def test_worker_set_claims_with_its_pools_origin():
    """Both ways to a worker: the process's share of the credentials, and an operator's operation."""
    origins = []

    def claim(pool: str, ids: list[str], count: int, states: tuple[str, ...], token_origin: str = "") -> list[Any]:
        origins.append(token_origin)
        return []

    membership = SimpleNamespace(
        fair_share=lambda _: 1, pools_in_group=lambda _: ["default"], usable_credentials=lambda _: ["c"]
    )

    def claim_any(candidates: list[Candidate], count: int) -> list[Any]:
        origins.extend(candidate.token_origin for candidate in candidates)
        return []

    services = SimpleNamespace(settings=Settings(pools=(HOME,)))
    leases = SimpleNamespace(claim=claim, claim_any=claim_any)
    worker_set = WorkerSet(services, leases, membership, None, {})  # type: ignore[arg-type]
    internals.claim_missing(worker_set, "default")
    assert worker_set.find_or_start_worker("default", "c") is None
    assert origins == ["https://login.example"] * 2
