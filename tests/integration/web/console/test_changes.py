"""What operators change on the console's pages: accounts, keys, imports, admin tokens, sessions."""

import io
import json
import re

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.api_keys.console_key import ensure_console_key
from shared.api_keys.store import ApiKeys, hash_secret
from shared.credentials.store import Credentials
from shared.files.part_store import FileStoreFull
from shared.files.store_health import STATES, report_failure
from shared.observability.audit_log import AuditLog
from shared.observability.refusals import record_refusals
from tests.console_content import HOSTILE
from tests.integration.workers.jobs.simulated_pool import SimulatedPool
from tests.waiting import eventually


def states(redis: Redis) -> dict[str, str]:
    return Credentials(redis).get_states("default")


def test_selected_accounts_are_disabled_enabled_and_removed_after_a_question(
    admin: FlaskClient, ids: list[str], redis: Redis
):
    chosen = {"id": ids[10:13]}
    done = admin.post("/admin/accounts?sort=label", data={**chosen, "action": "disable"}, follow_redirects=True)
    assert "3 accounts were disabled." in done.text
    assert {states(redis)[each] for each in ids[10:13]} == {"disabled"}
    admin.post("/admin/accounts", data={**chosen, "action": "enable"})
    assert {states(redis)[each] for each in ids[10:13]} == {"active"}
    question = admin.post("/admin/accounts", data={**chosen, "action": "remove"})
    assert "3 accounts and their tokens will be deleted for good." in question.text
    assert len(states(redis)) == 24
    gone = admin.post("/admin/accounts", data={**chosen, "action": "remove", "sure": "1"}, follow_redirects=True)
    assert "3 accounts were removed." in gone.text
    assert not set(ids[10:13]) & set(states(redis))
    assert "credentials.remove" in {entry.action for entry in AuditLog(redis).read_newest_first()}


def test_all_that_match_the_filter_are_changed_and_no_other(admin: FlaskClient, ids: list[str], redis: Redis):
    before = states(redis)
    admin.post("/admin/accounts?state=cooling", data={"all": "1", "action": "disable"})
    after = states(redis)
    assert {before[each] for each in ids if after[each] != before[each]} == {"cooling"}
    assert "cooling" not in after.values()


def test_operation_on_many_shows_its_progress_and_leads_to_the_accounts_of_an_outcome(
    admin: FlaskClient, ids: list[str], redis: Redis
):
    redis.delete(keys.PROCESSES)
    sent = admin.post("/admin/accounts?state=active", data={"all": "1", "action": "test"})
    assert re.fullmatch(r"/admin/bulk/\w+", sent.location)
    page = eventually(lambda: "hx-get" not in (page := admin.get(sent.location).text) and page)
    assert ("no worker process runs" in page, '<progress max="16" value="16"' in page) == (True, True)
    (link,) = re.findall(r'href="(/admin/accounts\?bulk=[^"]+)"', page)
    listed = admin.get(link.replace("&amp;", "&")).text
    assert listed.count('name="id"') == 16
    assert admin.get(f"{sent.location.replace('bulk/', 'accounts?bulk=')}&outcome=ok").text.count('name="id"') == 0
    labelled = admin.post("/admin/accounts", data={"id": ids[:2], "action": "relabel", "label": "pair"})
    assert "2 accounts were labelled." in admin.get(labelled.location).text
    assert admin.get("/admin/accounts?q=pair").text.count('name="id"') == 2
    assert admin.post(f"{sent.location}/cancel").location == sent.location


def test_nothing_selected_changes_nothing_and_says_so(admin: FlaskClient, ids: list[str], redis: Redis):
    before = states(redis)
    assert (
        "Nothing was selected." in admin.post("/admin/accounts", data={"action": "remove"}, follow_redirects=True).text
    )
    assert admin.post("/admin/accounts", data={"action": "explode", "id": ids[:1]}).status_code == 400
    assert states(redis) == before


def test_list_is_filtered_sorted_and_paged_by_its_address(admin: FlaskClient, ids: list[str], redis: Redis):
    def listed(query: str) -> list[str]:
        return re.findall(
            r'<th scope="row"><a href="/admin/accounts/(\w+)"', admin.get(f"/admin/accounts?{query}").text
        )

    assert listed("state=dead,foreign") == [each for each in ids if states(redis)[each] in ("dead", "foreign")]
    assert listed("q=*lator+1?") == ids[10:20]
    assert listed("pool=other") == []
    assert listed("sort=label&order=desc")[0] == ids[9]
    credentials = Credentials(redis)
    for number in range(90):
        credentials.add("default", f"another-{number}", "later")
    assert (len(listed("")), len(listed("page=2")), len(listed("page=99"))) == (100, 14, 14)


def test_account_is_labelled_ended_and_removed_on_its_page(admin: FlaskClient, ids: list[str], redis: Redis):
    path = f"/admin/accounts/{ids[1]}"
    assert "The label was saved." in admin.post(f"{path}/label", data={"label": HOSTILE}, follow_redirects=True).text
    page = admin.get(path).text
    assert "&lt;script&gt;" in page
    assert "End the cooldown now" in page
    admin.post(f"{path}/state", data={"action": "enable"})
    assert states(redis)[ids[1]] == "active"
    admin.post(f"{path}/state", data={"action": "remove"})
    gone = admin.get(path)
    assert gone.status_code == 404
    assert "This account was removed." in gone.text
    assert '<h1><span translate="no">&lt;script&gt;' in gone.text
    assert re.search(r"Removed by</dt><dd translate=\"no\">token \w+<", gone.text)
    for page in ("requests", "usage", "events"):
        assert f'href="/admin/{page}?credential={ids[1]}"' in gone.text
    assert "此账号已被移除。" in admin.get(f"{path}?lang=zh").text


def test_account_that_never_was_is_no_removed_one(admin: FlaskClient):
    page = admin.get("/admin/accounts/nothing")
    assert (page.status_code, "was removed" in page.text) == (404, False)


def test_test_without_a_worker_process_says_what_to_do(admin: FlaskClient, ids: list[str], monkeypatch):
    monkeypatch.setattr("shared.protocol.credential_operations.REPLY_TIMEOUT_SECONDS", 0.1, raising=False)
    foreign = ids[8]
    assert "It failed." in admin.post(f"/admin/accounts/{foreign}/test").text


def test_import_is_previewed_and_the_text_never_sent_back(admin: FlaskClient, ids: list[str], redis: Redis):
    text = "refresh-token-0\nfresh-token-abcdefgh-1\n\nfresh-token-abcdefgh-2\n"
    preview = admin.post("/admin/accounts/import", data={"text": text, "pool": "default", "action": "preview"}).text
    assert "Preview: nothing is stored yet" in preview
    assert "fresh-token-abcdefgh" not in preview
    assert re.findall(r'class="state (\w+)">[^<]*<b translate="no">(\d+)', preview) == [
        *(("added", "2"), ("duplicate", "1"), ("blank", "1"), ("invalid", "0"))
    ]
    assert len(states(redis)) == 24
    file = (io.BytesIO(text.encode()), "tokens.txt")
    data = {"file": file, "pool": "default", "label": "of a file", "action": "import"}
    stored = admin.post("/admin/accounts/import", data=data, content_type="multipart/form-data").text
    assert ("Imported" in stored, "fresh-token-abcdefgh" in stored) == (True, False)
    assert len(states(redis)) == 26
    assert (
        "There is no text to import" in admin.post("/admin/accounts/import", data={"text": " ", "pool": "default"}).text
    )


def test_large_import_fits_and_a_pool_that_is_not_there_is_refused(admin: FlaskClient, ids: list[str]):
    text = "\n".join(f"fresh-token-{number:040}" for number in range(2000))
    page = admin.post("/admin/accounts/import", data={"text": text, "pool": "default"})
    assert (page.status_code, ">2,000<" in page.text or ">2000<" in page.text) == (200, True)
    assert admin.post("/admin/accounts/import", data={"text": "token-token-token", "pool": "x"}).status_code == 404


def test_key_is_made_shown_once_changed_and_revoked(admin: FlaskClient, redis: Redis):
    form = {"name": "my <b>laptop</b>", "enabled": "1", "rpm": "60", "models": "gpt-*\nsmall", "weight": "2"}
    created = admin.post(
        "/admin/keys/new", data={**form, "expires_at": "2099-01-02T03:04", "quota_zone": "Asia/Shanghai"}
    )
    (secret,) = set(re.findall(r"sk-[\w-]{40,}", created.text))
    assert f"PDF2ZH_OPENAI_API_KEY={secret} \\\n  pdf2zh_next FILE.pdf --openai --openai-model" in created.text
    (key,) = ApiKeys(redis).list()
    assert (key.name, key.rpm, key.models, key.weight) == ("my <b>laptop</b>", 60, ("gpt-*", "small"), 2.0)
    assert (key.quota_zone, key.expires_at) == ("Asia/Shanghai", 4071006240)
    path = f"/admin/keys/{key.id}"
    for page in (path, f"{path}/edit", "/admin/keys"):
        assert secret not in admin.get(page).text
    edit = admin.get(f"{path}/edit").text
    assert ('value="60"' in edit, "2099-01-02T03:04" in edit) == (True, True)
    saved = admin.post(f"{path}/edit", data={"name": "renamed", "rpm": "", "models": ""}, follow_redirects=True)
    assert "The key was saved." in saved.text
    changed = ApiKeys(redis).get(key.id)
    assert (changed.name, changed.rpm, changed.models, changed.enabled, changed.weight) == (
        "renamed",
        0,
        (),
        False,
        2.0,
    )
    assert "The key was revoked." in admin.post(f"{path}/revoke", follow_redirects=True).text
    assert ApiKeys(redis).get(key.id).revoked_at
    assert "renamed" not in admin.get("/admin/keys").text
    assert "renamed" in admin.get("/admin/keys?state=revoked").text


def test_bad_field_of_a_key_is_named_and_what_was_typed_stays(admin: FlaskClient, redis: Redis):
    for field, value in {
        "rpm": "-1",
        "weight": "0",
        "networks": "nowhere",
        "quota_zone": "Mars",
        "expires_at": "x",
    }.items():
        page = admin.post("/admin/keys/new", data={"name": "typed", "enabled": "1", field: value})
        assert (page.status_code, f"<code>{field}</code>" in page.text, 'value="typed"' in page.text) == (
            422,
            True,
            True,
        )
    assert ApiKeys(redis).list() == []


def test_admin_token_is_made_once_and_revoked_and_sessions_end(admin: FlaskClient, redis: Redis):
    created = admin.post("/admin/system/tokens", data={"name": "grafana", "role": "viewer"}).text
    (secret,) = set(re.findall(r"admin-[\w-]{20,}", created))
    page = admin.get("/admin/system").text
    assert ("grafana" in page, secret in page) == (True, False)
    (token_id,) = re.findall(r"/admin/system/tokens/(\w+)/revoke", page)
    assert "revoked" in admin.post(f"/admin/system/tokens/{token_id}/revoke", follow_redirects=True).text
    assert admin.post("/admin/system/tokens", data={"name": "", "role": "viewer"}).status_code == 422
    (session_id,) = re.findall(r"/admin/system/sessions/(\w+)/end", page)
    assert admin.post(f"/admin/system/sessions/{session_id}/end").location == "/admin/login"
    assert admin.get("/admin/system").location.startswith("/admin/login")


def test_requests_are_found_by_filter_and_page_by_page(admin: FlaskClient, ids: list[str]):
    def listed(path: str) -> list[str]:
        return re.findall(r'href="/admin/requests/(req_\d+)"', admin.get(path).text)

    assert len(listed("/admin/requests")) == 100
    failed = listed("/admin/requests?outcome=failed")
    assert sorted(failed) == sorted(f"req_{number}" for number in range(0, 300, 17))
    assert 0 < len(listed(f"/admin/requests?credential={ids[0]}")) < 100
    following = re.findall(r'rel="next" href="([^"]+)"', admin.get("/admin/requests").text)[0]
    assert not set(listed(following.replace("&amp;", "&"))) & set(listed("/admin/requests"))
    assert "queue_timeout" in admin.get("/admin/requests/req_17").text


def test_usage_sums_up_and_leads_to_its_requests(admin: FlaskClient, ids: list[str]):
    page = admin.get("/admin/usage?by=key").text
    assert '<span class="number" translate="no">300</span>' in page
    assert "/admin/requests?key=" in page
    assert "laptop" in page
    assert admin.get("/admin/usage?by=key&credential=x").status_code == 409


def test_overview_names_what_needs_a_person(admin: FlaskClient, ids: list[str]):
    page = admin.get("/admin/", base_url="http://farm.example", headers={"origin": "http://farm.example"}).text
    for alert in ("No worker process runs", "2 accounts are dead", "plain HTTP"):
        assert alert in page or "login" in page
    local = admin.get("/admin/").text
    assert ("2 accounts are dead" in local, "plain HTTP" in local) == (True, False)


def test_files_that_can_not_be_stored_are_told(admin: FlaskClient, ids: list[str], redis: Redis):
    report_failure(redis, FileStoreFull("full"))
    for path in ("/admin/", "/admin/system"):
        assert "The store of files is full" in admin.get(path).text
    assert admin.get("/admin/api/v1/live").json["file_store"]["state"] == "full"
    assert STATES["full"] in admin.get("/readyz").json["warnings"]


@pytest.mark.parametrize("back", ["queue", "pools"])
def test_pool_is_paused_and_resumed_on_its_pages(admin: FlaskClient, ids: list[str], redis: Redis, back: str):
    for action, is_paused in (("pause", True), ("resume", False)):
        assert f'value="{action}"' in admin.get(f"/admin/{back}").text
        done = admin.post("/admin/pools/default/pause", data={"action": action, "back": back}, follow_redirects=True)
        assert (done.request.path, bool(redis.exists(keys.paused("default")))) == (f"/admin/{back}", is_paused)
        assert ('class="state cooling">paused' in done.text) == is_paused
        assert ("the pool is paused" in admin.get("/admin/").text) == is_paused


def test_key_gets_a_new_secret_shown_once(admin: FlaskClient, redis: Redis):
    former, key = ApiKeys(redis).create("laptop")
    page = admin.post(f"/admin/keys/{key.id}/rotate", data={"grace": "1"}).text
    (secret,) = set(re.findall(r"sk-[\w-]{43}", page))
    assert ApiKeys(redis).find(hash_secret(secret)) == ApiKeys(redis).get(key.id)
    shown = admin.get(f"/admin/keys/{key.id}?lang=en").text
    assert ("Former secret accepted until" in shown, secret in shown) == (True, False)
    ended = admin.post(f"/admin/keys/{key.id}/end-former", follow_redirects=True).text
    assert "End the former secret now" not in ended
    assert ApiKeys(redis).find(hash_secret(former)).is_expired  # type: ignore[union-attr]


def test_key_of_the_playground_has_no_secret_to_change(admin: FlaskClient, redis: Redis):
    ensure_console_key(redis)
    assert "/rotate" not in admin.get("/admin/keys/console").text
    for change in ("rotate", "revoke"):
        assert admin.post(f"/admin/keys/console/{change}").status_code == 409


def test_key_form_starts_with_the_fields_of_another_key(admin: FlaskClient, redis: Redis):
    _, key = ApiKeys(redis).create("laptop", rpm=77, models=["gpt-*"])
    form = admin.get(f"/admin/keys/new?like={key.id}").text
    assert ('value="77"' in form, "gpt-*</textarea>" in form, 'value="laptop"' in form) == (True, True, False)
    assert admin.get("/admin/keys/new?like=nobody").status_code == 404


def test_patterns_are_tried_on_the_models_that_are_known(admin: FlaskClient, redis: Redis):
    assert "No model is known yet" in admin.get("/admin/keys/matches?models=gpt-*&lang=en").text
    redis.set(keys.models("default"), json.dumps({"data": [{"id": name} for name in ("gpt-a", "gpt-b", HOSTILE)]}))
    found = admin.get("/admin/keys/matches?models=gpt-*%0Aother&lang=en").text
    assert "These patterns match 2 of 3 models." in found
    assert ("gpt-a, gpt-b" in found, HOSTILE in found) == (True, False)
    assert "match 0 of 3 models" in admin.get("/admin/keys/matches?models=gpt-*&pools=other&lang=en").text
    assert HOSTILE not in admin.get("/admin/keys/matches").text


def test_keys_short_of_their_quota_are_found_and_each_shows_its_use_and_changes(admin: FlaskClient, redis: Redis):
    _, key = ApiKeys(redis).create("nearly out", quota_requests=10)
    ApiKeys(redis).create("plenty", quota_requests=10)
    redis.hset(keys.quota(key.id), mapping={"period": "-", "requests": 9})
    record_refusals(redis, {(key.id, "insufficient_quota"): 4})
    page = admin.get("/admin/keys?scarce=1&lang=en").text
    assert ("nearly out" in page, "plenty" in page, "90 % of the quota used" in page) == (True, False, True)
    admin.post(f"/admin/keys/{key.id}/edit", data={"name": HOSTILE, "quota_requests": "10", "enabled": "1"})
    shown = admin.get(f"/admin/keys/{key.id}?lang=en").text
    assert re.search(r"9 / 10.*insufficient_quota.*>4<.*key\.update.*&lt;script&gt;", shown, re.DOTALL)


def test_request_that_waits_and_runs_has_a_page(admin: FlaskClient, ids: list[str], redis: Redis):
    path = "/admin/requests/req_w1"
    assert f'href="{path}"' in admin.get("/admin/queue").text
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", admin.get(f"{path}?lang=en").text))
    assert re.search(r"It waits .*Turn \d+ Starts in about", page)
    worker = SimulatedPool(redis).worker()
    started = worker.start()
    while started != "req_w1":
        started = worker.finish_and_start()
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", admin.get(f"{path}?lang=en").text))
    assert re.search(r"It runs .*Account c1 .*Reply not yet", page)
    assert admin.get("/admin/requests/req_gone").status_code == 404
