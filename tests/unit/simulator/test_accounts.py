"""The simulator issues, rotates and refuses tokens, and counts collisions."""

import pytest

from simulator.accounts import Accounts, TokenRefused


def test_a_refresh_token_yields_an_access_token_of_its_account():
    accounts = Accounts(3)
    grant = accounts.refresh(accounts.refresh_token(2))
    assert accounts.authorize(grant.access_token).number == 2
    assert grant.refresh_token is None


@pytest.mark.parametrize("token", ["", "sim-rt-9-0-x", "sim-rt-1-0-0000", "nonsense", "sim-rt-1-0"])
def test_an_unknown_refresh_token_is_refused(token: str):
    with pytest.raises(TokenRefused, match="invalid_grant"):
        Accounts(3).refresh(token)


def test_rotation_issues_a_new_token_and_reuse_of_an_old_one_kills_the_account():
    accounts = Accounts(1, rotate=True)
    first = accounts.refresh_token(0)
    second = accounts.refresh(first).refresh_token
    assert second is not None
    third = accounts.refresh(second).refresh_token
    with pytest.raises(TokenRefused):
        accounts.refresh(first)
    with pytest.raises(TokenRefused):
        accounts.refresh(third or "")
    assert accounts.counters["reused_refresh_tokens"] == 1


def test_a_restarted_simulator_accepts_earlier_tokens():
    before = Accounts(1, rotate=True)
    grant = before.refresh(before.refresh_token(0))
    after = Accounts(1, rotate=True)
    assert after.refresh(grant.refresh_token or "").refresh_token == after.refresh_token(0, 2)
    assert after.authorize(grant.access_token).number == 0


def test_access_tokens_expire():
    accounts = Accounts(1, access_ttl=-1)
    with pytest.raises(TokenRefused, match="token_expired"):
        accounts.authorize(accounts.refresh(accounts.refresh_token(0)).access_token)


def test_a_second_request_on_an_account_is_a_collision():
    accounts = Accounts(1)
    account = accounts.authorize(accounts.refresh(accounts.refresh_token(0)).access_token)
    assert accounts.begin_request(account)
    assert not accounts.begin_request(account)
    accounts.end_request(account)
    assert accounts.begin_request(account)
    assert accounts.counters["collisions"] == 1
