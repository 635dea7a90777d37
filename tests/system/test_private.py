"""Callers who bring their own refresh token get a private credential, which is sealed, bounded and forgotten."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from shared import keys
from shared.redis_connection.client import connect
from tests.redis_dump import dump_redis
from tests.system.farm import KEY, Farm, chat_body, run_farm
from tests.upstream import first_refresh_tokens
from tests.waiting import eventually

#: Refresh tokens of the farm's own credentials, and of callers.
FARM_TOKENS, CALLER_TOKENS = first_refresh_tokens(12)[:2], first_refresh_tokens(12)[2:]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {
        "FARM_PRIVATE_CREDENTIALS": "yes",
        "FARM_PRIVATE_IDLE": "600",
        "FARM_PRIVATE_MOST": "3",
        "FARM_REFUSAL_PATIENCE": "2",
    }
    yield from run_farm(tmp_path_factory, "private", 2, 10, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2", **settings)


@pytest.fixture
def private(started: Farm) -> tuple[Farm, Redis]:
    """The farm with its simulator reset, without private credentials and bans; and its Redis."""
    redis = connect(started.redis_url())
    started.upstream.reset()
    for key in redis.scan_iter("farm:private:*"):
        redis.delete(key)
    expire_private_credentials(redis)
    return started, redis


def expire_private_credentials(redis: Redis) -> None:
    """Makes all private credentials look idle for long, and waits until they are forgotten."""

    def are_forgotten() -> bool:
        names = redis.zrange(keys.PRIVATE_POOLS, 0, -1)
        if names:
            redis.zadd(keys.PRIVATE_POOLS, dict.fromkeys(names, 1), xx=True)
        return not names

    eventually(are_forgotten)


def private_keys(redis: Redis) -> list[bytes]:
    """Redis keys of private credentials, except RQ's records of workers: it keeps dead ones for a minute."""
    return [key for key in redis.scan_iter("*~*") if not key.startswith(b"rq:worker:")]


def send(farm: Farm, token: str, text: str = "Hello", **fields: object) -> tuple[int, str]:
    """Status, and the text of the reply or the error code."""
    response = farm.post("/v1/chat/completions", chat_body(text, **fields), key=token)
    body = response.json()
    is_ok = response.status_code == 200
    return response.status_code, body["choices"][0]["message"]["content"] if is_ok else body["error"]["code"]


def send_concurrently(farm: Farm, secrets: list[str]) -> list[tuple[int, str]]:
    """One concurrent request per secret."""
    with ThreadPoolExecutor(len(secrets)) as pool:
        return list(pool.map(lambda secret: send(farm, secret), secrets))


def test_private_credential_serves_only_its_caller_one_request_at_a_time(private: tuple[Farm, Redis]):
    farm, redis = private
    farm.upstream.pace(delay=0.1)
    assert send(farm, CALLER_TOKENS[0]) == (200, "Uryyb")
    (name,) = [pool.decode() for pool in redis.zrange(keys.PRIVATE_POOLS, 0, -1)]
    credential_id = name.removeprefix("default~")
    assert send_concurrently(farm, [CALLER_TOKENS[0]] * 8 + [KEY] * 8) == [(200, "Uryyb")] * 16
    assert farm.upstream.counters()["collisions"] == 0
    logged = eventually(lambda: (rows := farm.json("requests", "--limit", "17")) and len(rows) == 17 and rows)
    own_rows = [row for row in logged if row["credential"] == credential_id]
    assert [row["key"] for row in own_rows] == [f"private-{credential_id}"] * 9
    assert {row["pool"] for row in logged} == {"default"}
    assert [row for row in logged if row["key"].startswith("private-")] == own_rows
    workers = {key.decode() for key in redis.smembers("rq:workers")}
    assert f"rq:worker:{name}.{credential_id}" in workers
    assert farm.live_pool()["private_credentials"] == 1
    assert farm.metric("farm_private_credentials") == 1
    assert farm.get("/v1/models", key=CALLER_TOKENS[0]).json()["data"]
    listed = {record["id"]: record for record in farm.credentials()}
    assert (listed[credential_id]["pool"], listed[credential_id]["state"]) == (name, "active")


def test_rotated_token_is_recognised_by_the_callers_original_token(private: tuple[Farm, Redis]):
    farm, redis = private
    assert send(farm, CALLER_TOKENS[1])[0] == 200
    farm.upstream.accounts(expire=True)
    assert send(farm, CALLER_TOKENS[1])[0] == 200
    assert len(redis.zrange(keys.PRIVATE_POOLS, 0, -1)) == 1
    places = [dump_redis(redis), farm.log(), str(farm.json("credentials", "list")), farm.json("credentials", "export")]
    assert [place for place in places if "sim-rt-3-" in str(place) or CALLER_TOKENS[1] in str(place)] == []


def test_private_credential_survives_the_death_of_its_worker_process(private: tuple[Farm, Redis]):
    farm, _ = private
    assert send(farm, CALLER_TOKENS[2])[0] == 200
    for process in farm.processes("-m workers"):
        process.kill()
    assert send(farm, CALLER_TOKENS[2]) == (200, "Uryyb")
    assert farm.upstream.counters()["collisions"] == 0


def test_invalid_tokens_are_refused_and_leave_nothing(private: tuple[Farm, Redis]):
    farm, redis = private
    before = farm.upstream.counters()["refreshes"]
    assert send(farm, "sk-a-mistyped-key") == (401, "invalid_api_key")
    assert send(farm, FARM_TOKENS[0]) == (403, "private_token_taken")
    assert farm.upstream.counters()["refreshes"] == before
    assert [send(farm, "wrong-1") for _ in range(3)] == [(401, "invalid_refresh_token")] * 3
    assert farm.upstream.counters()["refreshes"] == before + 1
    assert [send(farm, f"wrong-{i}")[1] for i in range(2, 7)] == ["invalid_refresh_token"] * 4 + ["too_many_tokens"]
    assert send(farm, CALLER_TOKENS[3]) == (429, "too_many_tokens")
    assert send(farm, KEY) == (200, "Uryyb")
    eventually(lambda: not private_keys(redis))
    assert not redis.exists(keys.PRIVATE_POOLS)
    assert "wrong-" not in dump_redis(redis) + farm.log()


def test_waiting_requests_fail_when_their_private_credential_dies(private: tuple[Farm, Redis]):
    farm, _ = private
    assert send(farm, CALLER_TOKENS[3])[0] == 200
    farm.upstream.accounts(kill=5)
    assert send_concurrently(farm, [CALLER_TOKENS[3]] * 6) == [(401, "invalid_refresh_token")] * 6


def test_private_credentials_are_limited_until_some_are_forgotten(private: tuple[Farm, Redis]):
    farm, redis = private
    assert [send(farm, CALLER_TOKENS[number])[0] for number in (4, 5, 6)] == [200] * 3
    assert send(farm, CALLER_TOKENS[7]) == (429, "private_credentials_full")
    expire_private_credentials(redis)
    assert send(farm, CALLER_TOKENS[7])[0] == 200
    expire_private_credentials(redis)
    eventually(lambda: not private_keys(redis))


def test_refresh_token_is_a_wrong_key_without_the_setting(farm: Farm):
    assert send(farm, first_refresh_tokens(10)[9]) == (401, "invalid_api_key")
