"""An API key's fields are validated, and say what the key allows."""

import time
from typing import Any

import pytest

from shared.api_keys.api_key import ApiKey, KeyFields, validate_fields
from shared.errors import BadField


def build_key(**fields: Any) -> ApiKey:
    return ApiKey(id="k", hint="sk-…", created_at=0, **validate_fields(fields).model_dump())


def test_key_without_limits_allows_everything():
    unlimited = build_key()
    assert unlimited.allows_pool("default")
    assert unlimited.allows_model("anything")
    assert unlimited.allows_address("")
    assert not unlimited.is_expired


def test_pools_and_models_match_wildcards():
    limited = build_key(pools=["eu-*"], models=["gpt-?", "small"])
    assert [limited.allows_pool(name) for name in ("eu-1", "us-1", "EU-1")] == [True, False, False]
    assert [limited.allows_model(name) for name in ("gpt-5", "gpt-55", "small", "smaller")] == [
        True,
        False,
        True,
        False,
    ]


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
def test_key_allows_only_addresses_of_its_networks(address: str, allowed: bool):
    assert build_key(networks=["192.0.2.0/24", "2001:db8::/32"]).allows_address(address) is allowed


def test_key_expires():
    assert build_key(expires_at=time.time() - 1).is_expired
    assert not build_key(expires_at=time.time() + 60).is_expired


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
def test_invalid_field_is_named(fields: dict[str, Any], name: str):
    with pytest.raises(BadField) as caught:
        validate_fields(fields)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name}: ")


def test_fields_are_parsed_from_text():
    validated = validate_fields({"rpm": "600", "weight": "2.5", "enabled": "false"})
    assert (validated.rpm, validated.weight, validated.enabled) == (600, 2.5, False)


def test_every_field_has_a_description():
    assert all(field.description for field in KeyFields.model_fields.values())
