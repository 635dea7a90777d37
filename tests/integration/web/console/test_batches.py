"""The page Batches, and the admin API behind it."""

from flask.testing import FlaskClient
from redis import Redis

from shared import clock
from shared.api_keys.store import ApiKeys
from shared.batches.batch import STATES
from tests.console_batches import add_batch, fill_batches
from tests.console_content import HOSTILE
from tests.integration.web.console.conftest import LogIn


def test_each_state_is_shown_with_its_progress(admin: FlaskClient, redis: Redis):
    _, key = ApiKeys(redis).create("translator")
    batches = fill_batches(redis, key.id, HOSTILE)
    page = admin.get("/admin/batches").text
    assert all(f"/admin/batches/{batch.id}" in page for batch in batches)
    assert "in progress" in page and "70" in page and "translator" in page and HOSTILE not in page
    for batch in batches:
        shown = admin.get(f"/admin/batches/{batch.id}").text
        assert batch.id in shown and HOSTILE not in shown
    assert "invalid_json_line" in admin.get(f"/admin/batches/{batches[STATES.index('failed')].id}").text
    assert "by an operator" in admin.get(f"/admin/batches/{batches[STATES.index('cancelled')].id}").text
    assert admin.get("/admin/batches/batch_none").status_code == 404


def test_caller_without_a_key_leads_to_its_requests(admin: FlaskClient, redis: Redis):
    batch = add_batch(redis, "private-0123456789", "in_progress")
    for path in ("/admin/batches", f"/admin/batches/{batch.id}"):
        page = admin.get(path).text
        assert "/admin/requests?key=private-0123456789" in page and "/admin/keys/private" not in page
    assert admin.get("/admin/requests?key=private-0123456789").status_code == 200
    _, key = ApiKeys(redis).create("translator")
    assert f"/admin/keys/{key.id}" in admin.get(f"/admin/batches/{add_batch(redis, key.id).id}").text


def test_pace_and_faults_of_a_batch_are_told(admin: FlaskClient, redis: Redis):
    batch = add_batch(redis, "k", "in_progress")
    for path in ("/admin/batches", f"/admin/batches/{batch.id}"):
        page = admin.get(path).text
        assert "in 3 min" in page and "It will expire before" not in page
    assert "3.5 requests a minute in the last minutes" in page and "no request has ended" not in page
    assert page.index("http_400") < page.index("/admin/requests?key=k&amp;code=model_not_found")
    late = add_batch(redis, "k", "in_progress", expires_at=int(clock.now()) + 60)
    for path in ("/admin/batches", f"/admin/batches/{late.id}"):
        assert "It will expire before" in admin.get(path).text
    assert admin.get(f"/admin/api/v1/batches/{batch.id}").json["failures"] == {"http_400": 2, "model_not_found": 1}


def test_standstill_of_a_batch_and_its_cause_are_told(admin: FlaskClient, redis: Redis):
    samples = [[int(clock.now()) - 750, 28]]
    still = add_batch(redis, "k", "in_progress", samples=samples)
    hindered = add_batch(redis, "k", "in_progress", samples=samples, hindrance="key_disabled")
    for batch in (still, hindered):
        for path in ("/admin/batches?key=k", f"/admin/batches/{batch.id}"):
            page = admin.get(path).text
            assert "no request has ended for 12 min" in page and "in 3 min" not in page
        shown = admin.get(f"/admin/api/v1/batches/{batch.id}").json
        assert (shown["per_minute"], shown["estimated_end_at"], shown["hindrance"]) == (0, 0, batch.hindrance)
        assert 750 <= shown["still_seconds"] < 780
    assert "its key is disabled" in admin.get("/admin/batches").text
    assert "its key is disabled" in admin.get(f"/admin/batches/{hindered.id}").text
    assert "其密钥已停用" in admin.get(f"/admin/batches/{hindered.id}?lang=zh").text
    assert "its key is disabled" not in admin.get(f"/admin/batches/{still.id}?lang=en").text


def test_an_administrator_cancels_a_batch_and_a_viewer_does_not(admin: FlaskClient, log_in: LogIn, redis: Redis):
    batch = add_batch(redis, "k", "in_progress")
    viewer = log_in("viewer")
    assert "Cancel the batch" not in viewer.get(f"/admin/batches/{batch.id}").text
    assert viewer.post(f"/admin/batches/{batch.id}/cancel").status_code == 403
    done = admin.post(f"/admin/batches/{batch.id}/cancel", follow_redirects=True)
    assert "The batch is being cancelled" in done.text and "Cancel the batch" not in done.text


def test_the_record_of_a_batch_that_has_ended_is_removed(admin: FlaskClient, redis: Redis):
    running, ended = add_batch(redis, "k", "in_progress"), add_batch(redis, "k", "completed")
    assert "Remove the record" not in admin.get(f"/admin/batches/{running.id}").text
    assert "Remove the record" in admin.get(f"/admin/batches/{ended.id}").text
    assert admin.post(f"/admin/batches/{running.id}/remove").status_code == 409
    done = admin.post(f"/admin/batches/{ended.id}/remove", follow_redirects=True).text
    assert "its files stay" in done and ended.id not in done and running.id in done


def test_the_admin_api_lists_cancels_and_deletes_batches(admin: FlaskClient, redis: Redis):
    first, second = add_batch(redis, "k", "in_progress"), add_batch(redis, "k2", "completed")
    page = admin.get("/admin/api/v1/batches?limit=1").json
    rest = admin.get(f"/admin/api/v1/batches?limit=1&cursor={page['next']}").json
    assert {page["data"][0]["id"], rest["data"][0]["id"]} == {first.id, second.id} and rest["next"] is None
    (only,) = admin.get("/admin/api/v1/batches?key=k").json["data"]
    assert (only["id"], only["total"], only["running"]) == (first.id, 40, 0)
    assert admin.get("/admin/api/v1/batches?cursor=none").status_code == 404
    path = f"/admin/api/v1/batches/{first.id}"
    assert admin.post(f"{path}/cancel", json={}).json["status"] == "cancelling"
    assert admin.get(path).json["reason"] == "operator"
    assert admin.post(f"/admin/api/v1/batches/{second.id}/cancel", json={}).status_code == 409
    assert admin.get("/admin/api/v1/batches/none").status_code == 404
    assert admin.delete(path).status_code == 409
    ended = f"/admin/api/v1/batches/{second.id}"
    assert [admin.delete(ended).status_code, admin.delete(ended).status_code] == [204, 404]
