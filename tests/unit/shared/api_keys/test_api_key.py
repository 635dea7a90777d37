"""What may be set of an API key, and what it allows."""

import time
from typing import Any

import pytest

from shared.api_keys.api_key import ApiKey, KeyFields, validate_fields
from shared.errors import BadField


def key(**fields: Any) -> ApiKey:
    return ApiKey(id="k", hint="sk-…", created_at=0, **validate_fields(fields).model_dump())


def test_everything_is_allowed_where_nothing_is_said():
    free = key()
    assert free.allows_pool("default")
    assert free.allows_model("anything")
    assert free.allows_address("")
    assert not free.is_expired


def test_pools_and_models_are_named_with_wildcards():
    bound = key(pools=["eu-*"], models=["gpt-?", "small"])
    assert [bound.allows_pool(name) for name in ("eu-1", "us-1", "EU-1")] == [True, False, False]
    assert [bound.allows_model(name) for name in ("gpt-5", "gpt-55", "small", "smaller")] == [True, False, True, False]


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("192.0.3.7", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
        ("unix", False),
    ],
)
def test_callers_come_from_its_networks(address: str, allowed: bool):
    assert key(networks=["192.0.2.0/24", "2001:db8::/32"]).allows_address(address) is allowed


def test_a_key_ends():
    assert key(expires_at=time.time() - 1).is_expired
    assert not key(expires_at=time.time() + 60).is_expired


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"rpm": -1}, "rpm"),
        ({"rpm": "many"}, "rpm"),
        ({"rpm": 1.5}, "rpm"),
        ({"weight": 0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"band": "slow"}, "band"),
        ({"quota_reset": "yearly"}, "quota_reset"),
        ({"quota_zone": "Mars/Olympus"}, "quota_zone"),
        ({"quota_zone": "../etc/passwd"}, "quota_zone"),
        ({"networks": ["10.0.0.0/33"]}, "networks.0"),
        ({"models": [""]}, "models.0"),
        ({"name": "x" * 201}, "name"),
        ({"expires_at": "inf"}, "expires_at"),
        ({"rmp": 1}, "rmp"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], name: str):
    with pytest.raises(BadField) as caught:
        validate_fields(fields)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name}: ")


def test_text_is_read_as_the_command_line_gives_it():
    found = validate_fields({"rpm": "600", "weight": "2.5", "enabled": "false"})
    assert (found.rpm, found.weight, found.enabled) == (600, 2.5, False)


def test_every_field_says_what_it_is():
    assert all(field.description for field in KeyFields.model_fields.values())
