import pytest

from simulator.accounts import Accounts, Refused


def test_a_refresh_token_gives_an_access_token_that_opens_its_account():
    accounts = Accounts(3)
    grant = accounts.refresh(accounts.refresh_token(2))
    assert accounts.authorize(grant.access_token).number == 2
    assert grant.refresh_token is None


@pytest.mark.parametrize("token", ["", "sim-rt-9-0-x", "sim-rt-1-0-0000", "nonsense", "sim-rt-1-0"])
def test_an_unknown_refresh_token_is_refused(token: str):
    with pytest.raises(Refused, match="invalid_grant"):
        Accounts(3).refresh(token)


def test_rotation_gives_a_new_token_and_an_old_one_kills_the_family():
    accounts = Accounts(1, rotate=True)
    first = accounts.refresh_token(0)
    second = accounts.refresh(first).refresh_token
    assert second is not None
    third = accounts.refresh(second).refresh_token
    with pytest.raises(Refused):
        accounts.refresh(first)
    with pytest.raises(Refused):
        accounts.refresh(third or "")
    assert accounts.counters["reused_refresh_tokens"] == 1


def test_a_simulator_started_anew_takes_the_tokens_it_gave_before():
    before = Accounts(1, rotate=True)
    grant = before.refresh(before.refresh_token(0))
    after = Accounts(1, rotate=True)
    assert after.refresh(grant.refresh_token or "").refresh_token == after.refresh_token(0, 2)
    assert after.authorize(grant.access_token).number == 0


def test_access_tokens_expire():
    accounts = Accounts(1, access_ttl=-1)
    with pytest.raises(Refused, match="token_expired"):
        accounts.authorize(accounts.refresh(accounts.refresh_token(0)).access_token)


def test_a_second_request_on_an_account_is_a_collision():
    accounts = Accounts(1)
    account = accounts.authorize(accounts.refresh(accounts.refresh_token(0)).access_token)
    assert accounts.enter(account)
    assert not accounts.enter(account)
    accounts.leave(account)
    assert accounts.enter(account)
    assert accounts.counters["collisions"] == 1
