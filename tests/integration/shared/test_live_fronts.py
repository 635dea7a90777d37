"""A front has ended once it is marked as gone, or listed no more."""

from redis import Redis

from shared import clock, keys
from shared.live_fronts import find_gone_fronts


def test_only_fronts_that_have_ended_are_gone(redis: Redis):
    redis.zadd(keys.FRONTS, {"alive": clock.now(), "dead": clock.now()})
    redis.set(keys.front_gone("dead"), 1)
    assert find_gone_fronts(redis, ["alive", "dead", "left"]) == {"dead", "left"}
