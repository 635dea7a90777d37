"""Callers who bring a refresh token of their own: an account for them alone, sealed, guarded, and forgotten."""

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

#: The farm's own accounts are the first two; callers bring the next ones.
OURS, THEIRS = first_refresh_tokens(12)[:2], first_refresh_tokens(12)[2:]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {"FARM_PRIVATE_CREDENTIALS": "yes", "FARM_PRIVATE_IDLE": "6", "FARM_PRIVATE_MOST": "3"}
    yield from run_farm(tmp_path_factory, "private", 2, 10, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2", **settings)


@pytest.fixture
def private(started: Farm) -> tuple[Farm, Redis]:
    """The farm, its simulator well, with no private credential and nobody banned."""
    redis = connect(started.redis_url())
    started.upstream.reset()
    for one in redis.scan_iter("farm:private:*"):
        redis.delete(one)
    forget(redis)
    return started, redis


def forget(redis: Redis) -> None:
    """As if nobody had used any private credential for long."""
    for name in redis.zrange(keys.PRIVATE_POOLS, 0, -1):
        redis.zadd(keys.PRIVATE_POOLS, {name: 1})
    eventually(lambda: not redis.exists(keys.PRIVATE_POOLS), within=15)


def left(redis: Redis) -> list[bytes]:
    """What there is of private credentials, but for workers that have died: RQ shows them for a minute."""
    return [one for one in redis.scan_iter("*~*") if not one.startswith(b"rq:worker:")]


def ask(farm: Farm, token: str, text: str = "Hello", **fields: object) -> tuple[int, str]:
    """Status, and the answer's text or the error's code."""
    answer = farm.post("/v1/chat/completions", chat_body(text, **fields), key=token)
    found = answer.json()
    is_answer = answer.status_code == 200
    return answer.status_code, found["choices"][0]["message"]["content"] if is_answer else found["error"]["code"]


def at_once(farm: Farm, secrets: list[str]) -> list[tuple[int, str]]:
    """Asked by all of them at once."""
    with ThreadPoolExecutor(len(secrets)) as pool:
        return list(pool.map(lambda secret: ask(farm, secret), secrets))


def test_a_caller_has_its_own_account_alone_one_request_at_a_time(private: tuple[Farm, Redis]):
    farm, redis = private
    farm.upstream.pace(delay=0.1)
    assert ask(farm, THEIRS[0]) == (200, "Uryyb")
    (name,) = [one.decode() for one in redis.zrange(keys.PRIVATE_POOLS, 0, -1)]
    credential = name.removeprefix("default~")
    assert at_once(farm, [THEIRS[0]] * 8 + [KEY] * 8) == [(200, "Uryyb")] * 16
    assert farm.upstream.counters()["collisions"] == 0
    logged = eventually(lambda: (rows := farm.json("requests", "--limit", "17")) and len(rows) == 17 and rows)
    mine = [row for row in logged if row["credential"] == credential]
    assert [row["key"] for row in mine] == [f"private-{credential}"] * 9
    assert {row["pool"] for row in logged} == {"default"}
    assert [row for row in logged if row["key"].startswith("private-")] == mine
    workers = {one.decode() for one in redis.smembers("rq:workers")}
    assert f"rq:worker:{name}.{credential}" in workers
    assert farm.live_pool()["private_credentials"] == 1
    assert farm.metric("farm_private_credentials") == 1
    assert farm.get("/v1/models", key=THEIRS[0]).json()["data"]
    listed = {one["id"]: one for one in farm.credentials()}
    assert (listed[credential]["pool"], listed[credential]["state"]) == (name, "active")


def test_a_token_that_has_rotated_is_known_by_the_one_its_caller_has_and_found_nowhere(private: tuple[Farm, Redis]):
    farm, redis = private
    assert ask(farm, THEIRS[1])[0] == 200
    farm.upstream.accounts(expire=True)
    assert ask(farm, THEIRS[1])[0] == 200
    assert len(redis.zrange(keys.PRIVATE_POOLS, 0, -1)) == 1
    places = [dump_redis(redis), farm.log(), str(farm.json("credentials", "list")), farm.json("credentials", "export")]
    assert [place for place in places if "sim-rt-3-" in str(place) or THEIRS[1] in str(place)] == []


def test_the_account_goes_on_when_the_process_of_its_worker_dies(private: tuple[Farm, Redis]):
    farm, _ = private
    assert ask(farm, THEIRS[2])[0] == 200
    for process in farm.processes("-m workers"):
        process.kill()
    assert ask(farm, THEIRS[2]) == (200, "Uryyb")
    assert farm.upstream.counters()["collisions"] == 0


def test_what_is_no_good_token_is_refused_and_leaves_nothing(private: tuple[Farm, Redis]):
    farm, redis = private
    before = farm.upstream.counters()["refreshes"]
    assert ask(farm, "sk-a-mistyped-key") == (401, "invalid_api_key")
    assert ask(farm, OURS[0]) == (403, "private_token_taken")
    assert farm.upstream.counters()["refreshes"] == before
    assert [ask(farm, "wrong-1") for _ in range(3)] == [(401, "invalid_refresh_token")] * 3
    assert farm.upstream.counters()["refreshes"] == before + 1
    assert [ask(farm, f"wrong-{i}")[1] for i in range(2, 7)] == ["invalid_refresh_token"] * 4 + ["too_many_tokens"]
    assert ask(farm, THEIRS[3]) == (429, "too_many_tokens")
    assert ask(farm, KEY) == (200, "Uryyb")
    eventually(lambda: not left(redis))
    assert not redis.exists(keys.PRIVATE_POOLS)
    assert "wrong-" not in dump_redis(redis) + farm.log()


def test_when_the_account_is_lost_those_who_wait_hear_it_too(private: tuple[Farm, Redis]):
    farm, _ = private
    assert ask(farm, THEIRS[3])[0] == 200
    farm.upstream.accounts(kill=5)
    assert at_once(farm, [THEIRS[3]] * 6) == [(401, "invalid_refresh_token")] * 6


def test_there_are_so_many_and_no_more_until_one_is_forgotten(private: tuple[Farm, Redis]):
    farm, redis = private
    assert [ask(farm, THEIRS[number])[0] for number in (4, 5, 6)] == [200] * 3
    assert ask(farm, THEIRS[7]) == (429, "private_credentials_full")
    forget(redis)
    assert ask(farm, THEIRS[7])[0] == 200
    forget(redis)
    eventually(lambda: not left(redis))


def test_without_the_setting_a_refresh_token_is_a_wrong_key(farm: Farm):
    assert ask(farm, first_refresh_tokens(10)[9]) == (401, "invalid_api_key")
