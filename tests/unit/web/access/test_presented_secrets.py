"""An API key is presented as Bearer, or in the headers of Azure's and Anthropic's clients."""

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from web.access.presented_secrets import find_secrets


@pytest.mark.parametrize(
    ("headers", "secrets"),
    [
        ({}, []),
        ({"authorization": "Bearer"}, []),
        ({"authorization": "Bearer "}, []),
        ({"authorization": "Basic YTpi"}, []),
        ({"authorization": "bearer  a "}, ["a"]),
        ({"api-key": "a"}, ["a"]),
        ({"X-API-Key": " a "}, ["a"]),
        ({"authorization": "Basic YTpi", "api-key": "a"}, ["a"]),
        ({"authorization": "Bearer a", "api-key": "a", "x-api-key": "b"}, ["a", "b"]),
    ],
)
def test_secrets_are_found_in_order_and_once(headers: dict[str, str], secrets: list[str]):
    assert find_secrets(Request(EnvironBuilder("/", headers=headers).get_environ())) == secrets
