"""The ledger: what keys were entitled to, what they got, and whom they wait for."""

from shared.queue_view.batch_patience import BatchPatience, find_patience
from shared.queue_view.fairness import MAX_KEYS, MAX_RIVALS, Rival, find_rivals, list_shares
from shared.queue_view.service_order import Servers, Turn


def turn(key: str, band: str = "interactive", eta: float | None = 1.0) -> Turn:
    return Turn(f"req_{key}", key, band, eta)


def test_share_is_by_weight_among_those_who_had_requests_then():
    """`b` came for the second half only, and is owed nothing of the first."""
    slots = [{"a": 30.0}, {"a": 20.0, "b": 10.0}]
    shares = {share.key: share for share in list_shares(slots, (), {"a": 1.0, "b": 2.0}, {"a": "first"})}
    assert (shares["a"].got_seconds, shares["a"].entitled_seconds) == (50.0, 30.0 + 10.0)
    assert (shares["b"].got_seconds, shares["b"].entitled_seconds) == (10.0, 20.0)
    assert (shares["b"].got, shares["b"].entitled, shares["a"].key_name) == (0.1667, 0.3333, "first")


def test_key_that_waits_now_and_has_got_nothing_is_entitled_to_the_present():
    shares = {share.key: share for share in list_shares([{"a": 30.0}, {"a": 12.0}], {"late"}, {}, {})}
    assert (shares["late"].got_seconds, shares["late"].entitled_seconds, shares["a"].entitled_seconds) == (0, 6, 36)


def test_ledger_of_a_pool_that_served_nobody_is_empty():
    assert list_shares([{}, {}], {"a"}, {}, {}) == []


def test_key_waits_for_those_that_run_and_those_before_it():
    order = [turn("a"), turn("a"), turn("b"), turn("a"), turn("c"), Turn("req_x", "", "interactive", 1.0, True)]
    rivals = find_rivals(order, {"a": 1, "c": 5}, {"a": "first"})
    assert rivals["a"] == [Rival("c", "", 5, 0)]
    assert rivals["b"] == [Rival("c", "", 5, 0), Rival("a", "first", 1, 2)]
    assert rivals["c"] == [Rival("a", "first", 1, 3), Rival("b", "", 0, 1)]


def test_request_without_a_key_is_nobodys_rival():
    order = [Turn("req_x", "", "interactive", 1.0, True), turn("a")]
    assert find_rivals(order, {}, {}) == {"a": []}


def test_ledger_names_those_who_got_the_most():
    shares = list_shares([{f"k{number}": float(number) for number in range(1, MAX_KEYS + 20)}], (), {}, {})
    assert (len(shares), shares[0].key) == (MAX_KEYS, f"k{MAX_KEYS + 19}")


def test_only_the_worst_rivals_are_named():
    order = [*(turn(f"k{number}") for number in range(20)), turn("last")]
    assert len(find_rivals(order, {}, {})["last"]) == MAX_RIVALS


def test_patience_of_the_batch_band_tells_the_next_turn():
    order = [turn("a", eta=0.5), turn("a", eta=1.0), turn("slow", "batch", 1.5)]
    servers = Servers(batch_age=30.0, batch_turns=4)
    assert find_patience(12.5, 1, servers, order) == BatchPatience(12.5, 30.0, 1, 4, 3, 1.5)
    assert find_patience(12.5, 1, servers, order[:2]) == BatchPatience(12.5, 30.0, 1, 4)
    assert find_patience(None, 1, servers, order) is None
