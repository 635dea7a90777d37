import pytest

from workers.credentials.cooldown import BACKOFF_SECONDS, Cooldown

LIMIT = 60.0


def test_a_new_credential_may_work():
    assert Cooldown(LIMIT).remaining() == 0


def test_the_upstreams_own_word_is_obeyed():
    pauses = Cooldown(LIMIT)
    assert pauses.begin(7.0) == pytest.approx(7.0, abs=0.1)
    assert pauses.remaining() == pytest.approx(7.0, abs=0.5)


def test_no_pause_at_all_is_not_obeyed_either():
    assert Cooldown(LIMIT).begin(0.0) == pytest.approx(BACKOFF_SECONDS, abs=0.1)


def test_an_upstream_that_fails_gets_a_short_pause_only():
    pauses = Cooldown(LIMIT)
    assert max(pauses.begin(None, max_backoff=2.0) for _ in range(20)) <= 2.5


def test_a_day_is_not_obeyed_to_the_letter():
    assert Cooldown(LIMIT).begin(86_400.0) == pytest.approx(LIMIT, abs=0.1)


def test_a_pause_is_never_shortened_by_a_later_one():
    pauses = Cooldown(LIMIT)
    pauses.begin(30.0)
    pauses.begin(1.0)
    assert pauses.remaining() > 28


def test_pauses_grow_while_failures_go_on_and_start_anew_after_an_answer():
    pauses = Cooldown(LIMIT)
    first, second, third = (pauses.begin(None) for _ in range(3))
    assert BACKOFF_SECONDS * 0.75 <= first <= BACKOFF_SECONDS * 1.25
    assert second > first * 1.1
    assert third > second * 1.1
    pauses.reset_failures()
    pauses.resume(0.0)
    assert pauses.begin(None) <= BACKOFF_SECONDS * 1.25


def test_the_end_of_a_pause_is_noticed_once():
    pauses = Cooldown(LIMIT)
    assert not pauses.take_ended()
    pauses.resume(0.0)
    assert pauses.take_ended()
    assert not pauses.take_ended()


def test_a_person_ends_a_pause():
    pauses = Cooldown(LIMIT)
    pauses.begin(30.0)
    pauses.end()
    assert not pauses.remaining()
    assert pauses.take_ended()
