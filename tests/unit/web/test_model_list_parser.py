"""An upstream's model list is read in every shape that upstreams give it."""

import json
from typing import Any

import pytest

from web.model_list_parser import parse_models


@pytest.mark.parametrize(
    "listed",
    [
        {"object": "list", "data": [{"id": "a"}, {"id": "b"}]},
        {"data": ["a", "b"]},
        {"models": [{"name": "a"}, {"slug": "b"}]},
        {"models": ["a", "b"], "object": "list"},
        {"data": None, "models": [{"model": "a"}, {"model_name": "b"}]},
        {"data": {"models": [{"id": "a"}, {"id": "b"}]}},
        {"data": {"a": {"ctx": 1}, "b": {}}},
        {"models": {"a": {}, "b": {}}},
        {"success": True, "result": {"data": ["a", "b"]}},
        [{"id": "a"}, {"id": "b"}],
        ["a", "b"],
        ["a", None, 3, {}, {"id": ""}, {"id": 7, "name": "b"}],
    ],
)
def test_models_are_found_in_any_shape(listed: Any):
    models = parse_models(json.dumps(listed).encode())
    assert [model["id"] for model in models or []] == ["a", "b"]


def test_object_with_an_id_stays_as_it_is_and_others_become_models():
    models = parse_models(b'\xef\xbb\xbf[{"id": "a", "x": 1}, "b", {"name": "c", "object": "base"}]')
    assert models == [
        {"id": "a", "x": 1},
        {"id": "b", "object": "model", "created": 0, "owned_by": "upstream"},
        {"id": "c", "name": "c", "object": "base", "created": 0, "owned_by": "upstream"},
    ]


@pytest.mark.parametrize("body", [b"[]", b'{"data": []}', b'{"object": "list", "models": []}'])
def test_empty_list_is_a_list(body: bytes):
    assert parse_models(body) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{}", b"null", b'"a"', b"7", b'{"error": {"message": "no"}}', b'{"data": "a"}', b"[" * 100_000],
)
def test_what_holds_no_list_is_none(body: bytes):
    assert parse_models(body) is None
