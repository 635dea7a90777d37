"""A reload says which changed settings it could not put into force."""

from dataclasses import replace
from typing import Any

import pytest

from launcher.processes.restart_settings import describe_restart, find_restart_settings
from shared.settings.schema import PoolSettings, Settings

STARTED = Settings(pools=(PoolSettings(upstream_url="https://up.example/v1"),))


@pytest.mark.parametrize(
    ("changed", "variables"),
    [
        ({"max_queue": 5, "trusted_proxies": ("10.0.0.0/8",)}, []),
        ({"https": "internal"}, ["FARM_HTTPS"]),
        ({"https": "auto", "domain": ("farm.example",)}, ["FARM_HTTPS", "FARM_DOMAIN"]),
        ({"domain": ("farm.example",)}, []),
        ({"host": "0.0.0.0", "port": 80}, ["HOST", "PORT"]),
        ({"redis_url": "redis://elsewhere"}, ["REDIS_URL"]),
        ({"pools": (PoolSettings(),)}, ["FARM_UPSTREAM_URL"]),
    ],
)
def test_settings_that_need_a_restart_are_named(changed: dict[str, Any], variables: list[str]):
    assert find_restart_settings(STARTED, replace(STARTED, **changed)) == variables
    assert find_restart_settings(replace(STARTED, **changed), STARTED) == variables


def test_nothing_is_said_when_everything_is_in_force():
    assert describe_restart([]) == ""
    assert describe_restart(["PORT"]).startswith("PORT needs `./farm restart`;")
    assert describe_restart(["HOST", "PORT"]).startswith("HOST, PORT need `./farm restart`;")
