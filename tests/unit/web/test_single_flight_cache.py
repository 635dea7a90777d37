"""Concurrent lookups of a key cause one load, whose result is cached briefly."""

import gevent
import pytest

from tests import internals
from web import single_flight_cache
from web.single_flight_cache import SingleFlightCache


class Store:
    """A slow store that records its lookups."""

    def __init__(self) -> None:
        self.lookups: list[str] = []
        self.failure: Exception | None = None

    def load(self, key: str) -> str:
        self.lookups.append(key)
        gevent.sleep(0.01)
        if self.failure:
            raise self.failure
        return key.upper()


def test_concurrent_lookups_load_each_key_once():
    store = Store()
    cache: SingleFlightCache[str, str] = SingleFlightCache(store.load)
    greenlets = [gevent.spawn(cache.get, "ab"[i % 2]) for i in range(1000)]
    assert [greenlet.get(timeout=30) for greenlet in greenlets] == ["A", "B"] * 500
    assert store.lookups == ["a", "b"]
    assert cache.get("a") == "A"
    assert store.lookups == ["a", "b"]


def test_cached_result_expires(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(single_flight_cache, "TTL_SECONDS", 0.0)
    store = Store()
    cache: SingleFlightCache[str, str] = SingleFlightCache(store.load)
    assert [cache.get("a"), cache.get("a")] == ["A", "A"]
    assert store.lookups == ["a", "a"]


def test_failed_load_reaches_all_waiters_and_is_not_cached():
    store = Store()
    store.failure = ConnectionError("away")
    cache: SingleFlightCache[str, str] = SingleFlightCache(store.load)
    greenlets = [gevent.spawn(cache.get, "a") for _ in range(3)]
    for greenlet in greenlets:
        with pytest.raises(ConnectionError, match="away"):
            greenlet.get(timeout=30)
    store.failure = None
    assert cache.get("a") == "A"
    assert len(store.lookups) == 2


def test_cache_waiters_are_told_when_the_loader_is_killed():
    cache: SingleFlightCache[str, str] = SingleFlightCache(Store().load)
    first, second = gevent.spawn(cache.get, "a"), gevent.spawn(cache.get, "a")
    gevent.sleep(0)
    first.kill()
    with pytest.raises(ConnectionError):
        second.get(timeout=30)


def test_cache_is_bounded_in_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(single_flight_cache, "MAX_ENTRIES", 3)
    cache: SingleFlightCache[str, str] = SingleFlightCache(str.upper)
    for key in "abcdefgh":
        cache.get(key)
    assert internals.count_cached(cache) <= 3


def test_other_keys_never_clear_what_was_just_cached(monkeypatch: pytest.MonkeyPatch):
    """Ten thousand wrong API keys must not send the lookups of all callers to Redis."""
    monkeypatch.setattr(single_flight_cache, "MAX_ENTRIES", 3)
    store = Store()
    cache: SingleFlightCache[str, str] = SingleFlightCache(store.load)
    for key in "abcd":
        cache.get(key)
    assert [cache.get(key) for key in "bcd"] == ["B", "C", "D"]
    assert store.lookups == ["a", "b", "c", "d"]
