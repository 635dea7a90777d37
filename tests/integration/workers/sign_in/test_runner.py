"""An owner signs in by browser or by code; each way ends with one stored credential, or with a reason."""

from dataclasses import replace

import pytest
import requests

from shared import keys
from shared.protocol.credential_operations import CredentialOperation
from shared.sign_in.sign_in import ANSWER_OPERATION, BEGIN_OPERATION
from tests.redis_dump import dump_redis
from tests.waiting import eventually
from workers.sign_in import device_grant


def refuse_refresh(harness, monkeypatch, **changes) -> None:
    """Replaces fields of the token response's grant."""
    from workers.sign_in import runner

    parse = runner.parse_token_response
    monkeypatch.setattr(runner, "parse_token_response", lambda response: replace(parse(response), **changes))


def test_browser_sign_in_adds_an_account_that_serves(harness):
    sign_in = harness.begin(label="mine")
    assert (sign_in.state, sign_in.url.startswith(f"{harness.upstream.base}/oauth/authorize?")) == ("pending", True)
    done = harness.answer(sign_in, harness.consent(sign_in, account=2))
    assert (done.state, done.outcome, done.account) == ("done", "added", "a***2@simulator.example")
    (credential,) = harness.credentials()
    assert (credential.id, credential.state, credential.label) == (done.credential_id, "active", "mine")
    assert (credential.issuer, credential.subject) == (harness.upstream.base, "account-2")
    assert credential.token_origin == harness.upstream.base
    access_token = harness.token_store.load(credential.id)[1]
    body = {"model": "sim-translate", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": f"Bearer {access_token}"}
    assert requests.post(f"{harness.upstream.url}/chat/completions", json=body, headers=headers, timeout=30).ok


def test_answer_counts_once(harness):
    sign_in = harness.begin()
    answer = harness.consent(sign_in)
    assert harness.answer(sign_in, answer).state == "done"
    assert not harness.sign_ins.submit(sign_in.id, answer)
    result = harness.runner.run_operation(CredentialOperation("default", sign_in.id, ANSWER_OPERATION))
    assert not result["ok"]
    assert len(harness.credentials()) == 1


def test_second_answer_does_not_replace_the_one_that_is_being_used(harness):
    sign_in = harness.begin()
    answer = harness.consent(sign_in)
    assert harness.sign_ins.submit(sign_in.id, answer)
    assert not harness.sign_ins.submit(sign_in.id, {**answer, "code": "another"})


def test_verifier_of_another_request_gets_no_tokens(harness):
    """PKCE: a code that was stolen on its way is worthless."""
    stolen, own = harness.begin(), harness.begin()
    code = harness.consent(stolen)["code"]
    answer = {**harness.consent(own), "code": code}
    failed = harness.answer(own, answer)
    assert (failed.state, failed.error) == ("failed", "invalid_grant")


def test_id_token_of_another_request_is_refused(harness, monkeypatch):
    first = harness.begin()
    harness.answer(first, harness.consent(first))
    id_token = issue_id_token(harness)
    refuse_refresh(harness, monkeypatch, id_token=id_token)
    second = harness.begin()
    failed = harness.answer(second, harness.consent(second, account=1))
    assert (failed.state, failed.error) == ("failed", "invalid_id_token")
    assert len(harness.credentials()) == 1


def issue_id_token(harness) -> str:
    """A valid id token without the nonce of any browser: that of a device."""
    endpoints = harness.provider.find_endpoints()
    begun = requests.post(endpoints.device_url, data={"client_id": "farm", "scope": "openid"}, timeout=30).json()
    form = {"user_code": begun["user_code"], "decision": "allow"}
    requests.post(f"{harness.upstream.base}/device", data=form, timeout=30)
    poll = {"client_id": "farm", **device_grant.build_poll(begun["device_code"])}
    return requests.post(endpoints.token_url, data=poll, timeout=30).json()["id_token"]


def test_answer_of_another_issuer_is_refused_before_its_code_is_shown_to_anyone(harness):
    sign_in = harness.begin()
    answer = {**harness.consent(sign_in), "iss": "https://evil.example"}
    before = harness.upstream.counters().get("sign_ins", 0)
    assert harness.answer(sign_in, answer).error == "issuer_mismatch"
    assert harness.upstream.counters().get("sign_ins", 0) == before


def test_owner_who_refuses_ends_the_sign_in(harness):
    sign_in = harness.begin()
    assert harness.answer(sign_in, harness.consent(sign_in, decision="deny")).error == "access_denied"
    assert harness.credentials() == []


def test_scope_without_a_refresh_token_is_called_out(start_sign_ins):
    harness = start_sign_ins(scope="openid")
    assert harness.sign_in().error == "no_refresh_token"


@pytest.mark.parametrize(
    ("pool", "flow", "code"),
    [
        ({"client_id": ""}, "browser", "not_configured"),
        ({"credential_kind": "api_key"}, "browser", "not_configured"),
        ({"issuer": ""}, "browser", "not_configured"),
        ({"issuer": ""}, "device", "not_configured"),
        ({"issuer": "http://127.0.0.1:1"}, "browser", "discovery_failed"),
    ],
)
def test_missing_settings_are_named(start_sign_ins, pool, flow, code):
    assert start_sign_ins(**pool).begin(flow).error == code


def test_endpoints_may_be_set_one_by_one(start_sign_ins, upstream):
    urls = {"authorize_url": f"{upstream.base}/oauth/authorize", "device_url": f"{upstream.base}/oauth/device"}
    harness = start_sign_ins(issuer="", scope="openid offline_access", **urls)
    assert harness.sign_in(1).account == "a***1@simulator.example"
    harness.upstream.sign_ins(interval=0.2)
    sign_in = harness.begin("device")
    harness.enter_code(sign_in, account=2)
    assert harness.wait_for_end(sign_in).outcome == "added"


def test_secrets_of_a_sign_in_are_sealed_and_go_with_its_end(harness, redis):
    sign_in = harness.begin()
    state = harness.consent(sign_in)["state"]
    assert redis.hget(keys.sign_in(sign_in.id), "secrets")
    done = harness.answer(sign_in, harness.consent(sign_in))
    assert done.state == "done"
    assert redis.hmget(keys.sign_in(sign_in.id), "secrets", "answer") == [None, None]
    token = harness.stored_token(done.credential_id)
    dump = dump_redis(redis)
    assert token not in dump
    # The URL has the state; nothing else does.
    redis.delete(keys.sign_in(sign_in.id))
    assert state not in dump_redis(redis)


def test_device_sign_in_waits_for_the_code(harness):
    harness.upstream.sign_ins(interval=0.2)
    sign_in = harness.begin("device")
    assert sign_in.user_code in sign_in.url
    eventually(lambda: harness.upstream.counters().get("device_polls", 0) >= 2)
    assert harness.sign_ins.get(sign_in.id).state == "pending"
    harness.enter_code(sign_in, account=3)
    done = harness.wait_for_end(sign_in)
    assert (done.state, done.account) == ("done", "a***3@simulator.example")
    assert harness.upstream.counters().get("slow_downs", 0) == 0


def test_owner_may_refuse_a_device(harness):
    harness.upstream.sign_ins(interval=0.2)
    sign_in = harness.begin("device")
    harness.enter_code(sign_in, decision="deny")
    assert harness.wait_for_end(sign_in).error == "access_denied"


def test_device_code_expires(harness):
    harness.upstream.sign_ins(interval=0.2, device_seconds=0.5)
    ended = harness.wait_for_end(harness.begin("device"))
    assert (ended.state, ended.error) == ("expired", "expired")


def test_cancelled_sign_in_stays_cancelled(harness):
    harness.upstream.sign_ins(interval=0.2)
    sign_in = harness.begin("device")
    eventually(lambda: harness.upstream.counters().get("device_polls", 0))
    assert harness.sign_ins.fail(sign_in.id, "cancelled", "the sign-in was cancelled")
    harness.enter_code(sign_in)
    eventually(lambda: not harness.redis.exists(keys.sign_in_poll(sign_in.id)))
    assert harness.sign_ins.get(sign_in.id).error == "cancelled"
    assert harness.credentials() == []


def test_another_process_goes_on_when_the_one_that_polls_ends(harness):
    harness.upstream.sign_ins(interval=0.2)
    sign_in = harness.begin("device")
    successor = harness.build_runner("there")
    successor.start_polls()
    assert harness.redis.get(keys.sign_in_poll(sign_in.id)) == b"here", "two processes must not poll"
    eventually(lambda: hand_over(harness, sign_in.id))
    successor.start_polls()
    assert harness.redis.get(keys.sign_in_poll(sign_in.id)) == b"there"
    harness.enter_code(sign_in)
    assert harness.wait_for_end(sign_in).state == "done"


def test_successor_of_a_killed_process_polls_at_once_and_any_other_waits(harness):
    harness.upstream.sign_ins(interval=0.2)
    harness.runner = harness.build_runner("other")
    sign_in = harness.sign_ins.create("default", "device")
    harness.redis.set(keys.sign_in_poll(sign_in.id), "killed", ex=3600)
    harness.runner.run_operation(CredentialOperation("default", sign_in.id, BEGIN_OPERATION))
    harness.runner.start_polls()
    assert (harness.runner.poll_count, harness.redis.get(keys.sign_in_poll(sign_in.id))) == (0, b"killed")
    successor = harness.build_runner("successor", predecessor="killed")
    successor.start_polls()
    assert (successor.poll_count, harness.redis.get(keys.sign_in_poll(sign_in.id))) == (1, b"successor")
    harness.enter_code(harness.sign_ins.get(sign_in.id))
    assert harness.wait_for_end(sign_in).state == "done"


def test_process_whose_lock_has_been_taken_over_polls_no_more_and_leaves_the_lock(harness):
    harness.upstream.sign_ins(interval=0.2)
    sign_in = harness.begin("device")
    harness.redis.set(keys.sign_in_poll(sign_in.id), "another", ex=3600)
    eventually(lambda: harness.runner.poll_count == 0)
    assert harness.redis.getdel(keys.sign_in_poll(sign_in.id)) == b"another"
    assert harness.sign_ins.get(sign_in.id).state == "pending"


def hand_over(harness, sign_in_id: str) -> bool:
    """Whether the process that polls has let go, as it does between two polls."""
    harness.runner.hand_over_polls()
    return not harness.redis.exists(keys.sign_in_poll(sign_in_id))
