"""How often a refused refresh token is presented again."""

from workers.credentials.refusals import Refusals

PATIENCE = 36.0


def refuse(*, others_granted: bool) -> list[Refusals]:
    """The refusals of a token that is presented whenever it is due, until the credential is dead.

    If others are granted tokens, it is a second before each refusal.
    """
    refusals, seen, now = Refusals(), [], 1000.0
    while True:
        following = refusals.add("token", now, PATIENCE, now - 1 if others_granted else 0.0)
        if following is None:
            return seen
        seen.append(following)
        now += following.pause(now, PATIENCE)
        refusals = following


def test_pauses_grow_and_the_last_try_is_announced():
    seen = refuse(others_granted=True)
    pauses = [after.retry_at - before for before, after in zip((1000, *(r.retry_at for r in seen)), seen, strict=False)]
    assert pauses == sorted(pauses)
    assert pauses[0] > 2
    assert [refusals.is_last for refusals in seen] == [False, False, True]


def test_credential_dies_within_half_a_minute_when_others_are_granted_tokens_else_after_the_patience():
    assert 14 < refuse(others_granted=True)[-1].retry_at - 1000 < 30
    assert PATIENCE < refuse(others_granted=False)[-1].retry_at - 1000 < 60


def test_grant_before_the_first_refusal_is_no_evidence():
    refusals = Refusals()
    for now in (1000.0, 1003.0, 1009.0, 1021.0):
        following = refusals.add("token", now, PATIENCE, granted_at=999.0)
        assert following is not None
        refusals = following
    assert not refusals.is_last


def test_refusals_survive_being_stored_and_unknown_fields():
    refusals = refuse(others_granted=True)[0]
    stored = refusals.encode().encode()
    assert Refusals.decode(stored) == refusals
    assert Refusals.decode(stored[:-1] + b', "newer": 1}') == refusals
    assert Refusals.decode(None) == Refusals()


def test_pause_is_bounded_when_the_clock_of_the_host_that_stored_it_was_ahead():
    assert Refusals("token", 1, retry_at=5000.0).pause(1000.0, PATIENCE) < 15
