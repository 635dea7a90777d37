"""Cooldowns follow Retry-After within bounds, or back off exponentially."""

import pytest

from workers.credentials.cooldown import BACKOFF_SECONDS, Cooldown

MAX_SECONDS = 60.0


def test_new_credential_has_no_cooldown():
    assert Cooldown(MAX_SECONDS).remaining() == 0


def test_retry_after_is_obeyed():
    cooldown = Cooldown(MAX_SECONDS)
    assert cooldown.begin(7.0) == pytest.approx(7.0, abs=0.1)
    assert cooldown.remaining() == pytest.approx(7.0, abs=0.5)


def test_retry_after_zero_still_gives_a_cooldown():
    assert Cooldown(MAX_SECONDS).begin(0.0) == pytest.approx(BACKOFF_SECONDS, abs=0.1)


def test_backoff_is_bounded_for_a_failing_upstream():
    cooldown = Cooldown(MAX_SECONDS)
    assert max(cooldown.begin(None, max_backoff=2.0) for _ in range(20)) <= 2.5


def test_long_retry_after_is_capped():
    assert Cooldown(MAX_SECONDS).begin(86_400.0) == pytest.approx(MAX_SECONDS, abs=0.1)


def test_rest_whose_end_is_known_lasts_until_then_but_no_nonsense_does():
    cooldown = Cooldown(MAX_SECONDS)
    cooldown.extend(86_400.0)
    assert cooldown.remaining() == pytest.approx(86_400.0, abs=5)
    cooldown.extend(10_000_000.0)
    assert cooldown.remaining() == pytest.approx(25 * 3600, abs=5)


def test_successor_takes_a_known_rest_over_as_long_as_it_is():
    cooldown = Cooldown(MAX_SECONDS)
    cooldown.resume(80_000.0)
    assert cooldown.remaining() == pytest.approx(80_000.0, abs=5)


def test_cooldown_is_never_shortened_by_a_later_one():
    cooldown = Cooldown(MAX_SECONDS)
    cooldown.begin(30.0)
    cooldown.begin(1.0)
    assert cooldown.remaining() > 28


def test_backoff_grows_with_failures_and_restarts_after_a_success():
    cooldown = Cooldown(MAX_SECONDS)
    first, second, third = (cooldown.begin(None) for _ in range(3))
    assert BACKOFF_SECONDS * 0.75 <= first <= BACKOFF_SECONDS * 1.25
    assert second > first * 1.1
    assert third > second * 1.1
    cooldown.reset_failures()
    cooldown.resume(0.0)
    assert cooldown.begin(None) <= BACKOFF_SECONDS * 1.25


def test_end_of_a_cooldown_is_reported_once():
    cooldown = Cooldown(MAX_SECONDS)
    assert not cooldown.take_ended()
    cooldown.resume(0.0)
    assert cooldown.take_ended()
    assert not cooldown.take_ended()


def test_end_ends_a_cooldown_at_once():
    cooldown = Cooldown(MAX_SECONDS)
    cooldown.begin(30.0)
    cooldown.end()
    assert not cooldown.remaining()
    assert cooldown.take_ended()


def test_only_the_causes_own_part_is_taken_back():
    cooldown = Cooldown(MAX_SECONDS)
    cooldown.begin(10.0, cause="good")
    cooldown.begin(40.0, cause="culprit")
    cooldown.take_back("culprit")
    assert 9 < cooldown.remaining() <= 10
    cooldown.take_back("good")
    assert not cooldown.remaining()
    assert cooldown.take_ended()


def test_request_that_fails_again_does_not_lengthen_the_backoff():
    cooldown = Cooldown(MAX_SECONDS)
    assert max(cooldown.begin(None, cause="r1") for _ in range(9)) <= BACKOFF_SECONDS * 1.25


def test_causes_are_bounded_in_number():
    cooldown = Cooldown(MAX_SECONDS)
    for number in range(1000):
        cooldown.begin(5.0, cause=f"r{number}")
    cooldown.take_back("r999")
    assert cooldown.remaining() > 4
