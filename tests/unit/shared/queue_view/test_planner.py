"""How many accounts a load needs."""

import random

import pytest

from shared.queue_view.planner import (
    MAX_ACCOUNTS,
    REQUESTS_BETWEEN_PAUSES,
    Demand,
    Wish,
    choose_accounts,
    find_accounts,
    find_accounts_by_erlang_c,
    look_ahead,
    simulate,
)


def test_waits_are_those_of_a_queue_with_so_many_servers():
    load = [Demand(at, 2.0) for at in (0.0, 0.5, 1.0, 10.0)]
    assert simulate(load, 1) == [0.0, 1.5, 3.0, 0.0]
    assert simulate(load, 2) == [0.0, 0.0, 1.0, 0.0]
    assert simulate([], 3) == []


@pytest.mark.parametrize(("wait", "accounts"), [(0.0, 100), (1.0, 50), (3.0, 25), (99.0, 1)])
def test_burst_needs_as_many_accounts_as_it_has_requests_per_round(wait: float, accounts: int):
    """A hundred requests at once, a second each; all of them must start in time."""
    assert find_accounts([Demand(5.0, 1.0)] * 100, Wish(wait, 1.0)) == accounts


def test_needed_accounts_are_the_fewest_that_do():
    dice, at, load = random.Random(1), 0.0, []
    for _ in range(2000):
        at += dice.expovariate(4.0)
        load.append(Demand(at, dice.uniform(0.5, 3.0)))
    needed = find_accounts(load, Wish(2.0, 0.95))
    assert needed is not None
    enough, too_few = look_ahead(load, needed, Wish(2.0)), look_ahead(load, needed - 1, Wish(2.0))
    assert enough.share_in_time >= 0.95 > too_few.share_in_time
    assert enough.wait <= 2.0 < too_few.wait
    assert enough.p50 <= enough.p95 <= enough.p99
    assert 0 < enough.utilisation <= 1


def test_replay_agrees_with_erlang_c_on_what_that_assumes():
    """Poisson arrivals and exponential times, ten accounts busy on average."""
    dice, at, load = random.Random(2), 0.0, []
    for _ in range(20_000):
        at += dice.expovariate(5.0)
        load.append(Demand(at, dice.expovariate(0.5)))
    wish = Wish(1.0, 0.95)
    needed, by_formula = find_accounts(load, wish), find_accounts_by_erlang_c(10.0, 2.0, wish)
    assert needed is not None
    assert by_formula is not None
    assert abs(needed - by_formula) <= 1


@pytest.mark.parametrize(
    ("offered", "share", "accounts"),
    # P(wait > 0) of Erlang C tables: C(11, 10) = 0.682, C(13, 10) = 0.285, C(15, 10) = 0.102, C(17, 10) = 0.030.
    [(10.0, 0.31, 11), (10.0, 0.71, 13), (10.0, 0.89, 15), (10.0, 0.96, 17), (0.0, 0.95, 1)],
)
def test_erlang_c_is_that_of_the_tables(offered: float, share: float, accounts: int):
    assert find_accounts_by_erlang_c(offered, 1.0, Wish(0.0, share)) == accounts


def test_wish_that_no_number_of_accounts_fulfils_is_told():
    assert find_accounts([Demand(0.0, 1.0)] * 6000, Wish(0.0, 1.0)) is None
    assert find_accounts_by_erlang_c(6000.0, 1.0, Wish()) is None


def test_others_get_their_turn_during_a_replay():
    pauses: list[None] = []
    simulate([Demand(0.0, 1.0)] * (3 * REQUESTS_BETWEEN_PAUSES), 1, lambda: pauses.append(None))
    assert len(pauses) == 3


def test_compared_numbers_surround_the_needed_one():
    assert max(choose_accounts(MAX_ACCOUNTS - 1, 0)) <= MAX_ACCOUNTS
    assert choose_accounts(8, 5) == [4, 5, 6, 7, 8, 10, 16]
    assert choose_accounts(1, 0) == [1, 2]
