"""Output for people and programs holds no secret."""

import pytest

from launcher.output import mask_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hush@redis.example:6379/1", "redis://:***@redis.example:6379/1"),
        ("rediss://farm:h:u@sh:1@redis.example", "rediss://farm:***@redis.example"),
        ("redis://redis.example/0", "redis://redis.example/0"),
        (
            "redis+sentinel://u:hush@a:1,b:2/farm?sentinel_password=hush",
            "redis+sentinel://u:***@a:1,b:2/farm?sentinel_password=***",
        ),
        ("unix:///data/redis.sock?password=hush&db=1", "unix:///data/redis.sock?password=***&db=1"),
    ],
)
def test_password_of_redis_is_masked(url: str, shown: str):
    assert mask_password(url) == shown
