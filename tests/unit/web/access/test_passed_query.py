"""Of a caller's query only the listed parameters go upstream, and no API key ever."""

import pytest

from web.access.passed_query import select_query

PASSED = ("api-version", "key", "sort by")


@pytest.mark.parametrize(
    ("query", "selected"),
    [
        (b"", ""),
        (b"after=x&limit=2", ""),
        (b"api-version=2024-10-21", "api-version=2024-10-21"),
        (b"x=1&api-version=a%20b&&y", "api-version=a%20b"),
        (b"api%2Dversion=1&sort+by=x&API-VERSION=2", "api%2Dversion=1&sort+by=x"),
        (b"api-version", "api-version"),
        (b"api-version=1&key=sk-whatever", "api-version=1"),
        (b"api-version=1&key=%73k-whatever", "api-version=1"),
        (b"api-version=my-own-key&key=xmy%2Down-keyx&key=other", "key=other"),
        (b"api-version=%ff\xff;x", "api-version=%ff\xff;x"),
    ],
)
def test_listed_parameters_are_selected(query: bytes, selected: str):
    assert select_query(query, PASSED, ["my-own-key"]) == selected
