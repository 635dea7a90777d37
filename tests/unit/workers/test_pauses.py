import pytest

from workers.credentials.cooldown import FIRST, Pauses

LIMIT = 60.0


def test_a_new_credential_may_work():
    assert Pauses(LIMIT).left() == 0


def test_the_upstreams_own_word_is_obeyed():
    pauses = Pauses(LIMIT)
    assert pauses.begin(7.0) == pytest.approx(7.0, abs=0.1)
    assert pauses.left() == pytest.approx(7.0, abs=0.5)


def test_no_pause_at_all_is_not_obeyed_either():
    assert Pauses(LIMIT).begin(0.0) == pytest.approx(FIRST, abs=0.1)


def test_an_upstream_that_fails_gets_a_short_pause_only():
    pauses = Pauses(LIMIT)
    assert max(pauses.begin(None, most=2.0) for _ in range(20)) <= 2.5


def test_a_day_is_not_obeyed_to_the_letter():
    assert Pauses(LIMIT).begin(86_400.0) == pytest.approx(LIMIT, abs=0.1)


def test_a_pause_is_never_shortened_by_a_later_one():
    pauses = Pauses(LIMIT)
    pauses.begin(30.0)
    pauses.begin(1.0)
    assert pauses.left() > 28


def test_pauses_grow_while_failures_go_on_and_start_anew_after_an_answer():
    pauses = Pauses(LIMIT)
    first, second, third = (pauses.begin(None) for _ in range(3))
    assert FIRST * 0.75 <= first <= FIRST * 1.25
    assert second > first * 1.1
    assert third > second * 1.1
    pauses.forget()
    pauses.resume(0.0)
    assert pauses.begin(None) <= FIRST * 1.25


def test_the_end_of_a_pause_is_noticed_once():
    pauses = Pauses(LIMIT)
    assert not pauses.over()
    pauses.resume(0.0)
    assert pauses.over()
    assert not pauses.over()


def test_a_person_ends_a_pause():
    pauses = Pauses(LIMIT)
    pauses.begin(30.0)
    pauses.end()
    assert not pauses.left()
    assert pauses.over()
