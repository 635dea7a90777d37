"""The Cache-Control header of a request is read as RFC 9111 says."""

import pytest

from web.replay.cache_control import CacheControl


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", CacheControl()),
        ("no-transform, max-stale=5, unknown", CacheControl()),
        ('a="b, no-store, c", d="\\", no-cache, ", max-age=5,,', CacheControl(max_age=5)),
        ('no-cache, a="open, no-store', CacheControl(may_use=False)),
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
