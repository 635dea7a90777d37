"""The Cache-Control header of a request is read as RFC 9111 says."""

import pytest

from web.replay.cache_control import CacheControl


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", CacheControl()),
        ("no-transform, max-stale=5, unknown", CacheControl()),
        ("No-Cache", CacheControl(may_use=False)),
        ("no-store,only-if-cached", CacheControl(may_keep=False, only_if_cached=True)),
        (' max-age="20" , MIN-FRESH=3', CacheControl(max_age=20, min_fresh=3)),
        ("max-age=0", CacheControl(may_use=False, max_age=0)),
        ("max-age=x", CacheControl(may_use=False, max_age=0)),
        ("max-age=-5", CacheControl(may_use=False, max_age=0)),
        ("max-age=5, max-age=7", CacheControl(max_age=5)),
        ("min-fresh=" + "9" * 5000, CacheControl(min_fresh=2**31)),
        ("max-age=\u0663", CacheControl(may_use=False, max_age=0)),
    ],
)
def test_directives_are_read(header: str, expected: CacheControl):
    assert CacheControl.parse(header) == expected


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        (CacheControl(), 0),
        (CacheControl(max_age=70), 30),
        (CacheControl(max_age=500), 0),
        (CacheControl(min_fresh=7), 7),
    ],
)
def test_age_is_told_by_the_time_that_is_left(control: CacheControl, seconds: float):
    assert control.find_min_left(100) == seconds
