"""What many ask at once is asked once."""

import gevent
import pytest

from web import single_flight_cache
from web.single_flight_cache import SingleFlightCache


class Store:
    """Answers slowly; counts the questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def look(self, key: str) -> str:
        self.asked.append(key)
        gevent.sleep(0.01)
        if self.failure:
            raise self.failure
        return key.upper()


def test_a_thousand_who_come_together_ask_once():
    store = Store()
    answers: SingleFlightCache[str, str] = SingleFlightCache(store.look)
    greenlets = [gevent.spawn(answers.get, "ab"[i % 2]) for i in range(1000)]
    assert [one.get(timeout=5) for one in greenlets] == ["A", "B"] * 500
    assert store.asked == ["a", "b"]
    assert answers.get("a") == "A"
    assert store.asked == ["a", "b"]


def test_an_answer_is_not_believed_for_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(single_flight_cache, "TTL_SECONDS", 0.0)
    store = Store()
    answers: SingleFlightCache[str, str] = SingleFlightCache(store.look)
    assert [answers.get("a"), answers.get("a")] == ["A", "A"]
    assert store.asked == ["a", "a"]


def test_a_failure_reaches_all_and_is_not_kept():
    store = Store()
    store.failure = ConnectionError("away")
    answers: SingleFlightCache[str, str] = SingleFlightCache(store.look)
    greenlets = [gevent.spawn(answers.get, "a") for _ in range(3)]
    for one in greenlets:
        with pytest.raises(ConnectionError, match="away"):
            one.get(timeout=5)
    store.failure = None
    assert answers.get("a") == "A"
    assert len(store.asked) == 2


def test_who_waits_for_one_who_is_killed_hears_of_it():
    answers: SingleFlightCache[str, str] = SingleFlightCache(Store().look)
    first, second = gevent.spawn(answers.get, "a"), gevent.spawn(answers.get, "a")
    gevent.sleep(0)
    first.kill()
    with pytest.raises(ConnectionError):
        second.get(timeout=5)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(single_flight_cache, "MAX_ENTRIES", 3)
    answers: SingleFlightCache[str, str] = SingleFlightCache(str.upper)
    for key in "abcdefgh":
        answers.get(key)
    assert len(answers._cached) <= 3
