"""The RQ dashboard needs the admin token, shows true figures, and hides prompts and secrets."""

import threading

import pytest
import requests

from tests.system.farm import ADMIN, Farm, reset_farm
from tests.waiting import eventually
from web.admin.access.gate import DELAY_STEP_SECONDS

DATA = "/admin/rq/0/data"


@pytest.fixture
def admin(farm: Farm) -> requests.Session:
    """A session logged in by the form, whose requests come from the dashboard's own pages."""
    session = requests.Session()
    session.headers["origin"] = farm.url
    page = session.post(farm.url + "/admin/login", data={"token": ADMIN}, timeout=20)
    assert page.status_code == 200
    assert "Overview" in page.text
    return session


def test_dashboard_is_closed_without_the_admin_token(farm: Farm):
    page = requests.get(farm.url + "/admin/rq/", headers={"accept": "text/html"}, timeout=20)
    assert page.url.endswith("/admin/login?next=/admin/rq/")
    for method, path in (("GET", f"{DATA}/queues.json"), ("POST", "/admin/rq/queue/chat:default/queued/empty")):
        response = requests.request(method, farm.url + path, timeout=20)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_admin_token")


def test_wrong_tokens_are_refused_and_delayed(farm: Farm):
    first = requests.post(farm.url + "/admin/login", data={"token": "wrong"}, timeout=20)
    second = requests.get(farm.url + "/admin/rq/", headers={"authorization": "Bearer wrong"}, timeout=20)
    assert (first.status_code, second.status_code) == (401, 401)
    assert "That is not the admin token" in first.text
    assert first.elapsed.total_seconds() >= DELAY_STEP_SECONDS
    assert second.elapsed.total_seconds() >= 2 * DELAY_STEP_SECONDS


def test_dashboard_accepts_the_token_as_bearer(farm: Farm):
    response = requests.get(f"{farm.url}{DATA}/queues.json", headers={"authorization": f"Bearer {ADMIN}"}, timeout=20)
    assert {"chat:default", "batch:default"} <= {queue["name"] for queue in response.json()["queues"]}
    assert response.headers["cache-control"] == "no-store"


def test_session_cookie_is_same_site_and_hidden_from_scripts(farm: Farm):
    response = requests.post(farm.url + "/admin/login", data={"token": ADMIN}, allow_redirects=False, timeout=20)
    cookie = response.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/admin"))


def test_workers_are_shown_by_their_credential_busy_or_idle(farm: Farm, admin: requests.Session):
    farm.upstream.pace(delay=1.5)
    prompt = "a prompt that nobody else may read"
    running = threading.Thread(target=farm.chat, args=(prompt,))
    running.start()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 1)
    response = admin.get(f"{farm.url}{DATA}/workers.json", timeout=20)
    workers = response.json()["workers"]
    running.join()
    ids = {credential["id"] for credential in farm.credentials()}
    assert {worker["name"] for worker in workers} == {f"default.{id_}" for id_ in ids}
    assert sorted(worker["state"] for worker in workers).count("busy") == 1
    (busy,) = [worker for worker in workers if worker["state"] == "busy"]
    assert busy["current_job"]["description"] == "POST /chat/completions"
    assert prompt not in response.text


def test_waiting_jobs_are_listed_deleted_and_emptied_and_callers_get_errors(farm: Farm, admin: requests.Session):
    farm.upstream.pace(delay=6)
    responses: list[requests.Response] = []
    threads = [threading.Thread(target=lambda: responses.append(farm.chat("secret prompt"))) for _ in range(11)]
    for thread in threads:
        thread.start()
    jobs_url = f"{farm.url}{DATA}/jobs/chat:default/queued/8/asc/1.json"
    listed = eventually(lambda: len(jobs := admin.get(jobs_url, timeout=20).json()["jobs"]) == 3 and jobs)
    assert "secret prompt" not in str(listed)
    deleted = admin.post(f"{farm.url}/admin/rq/job/{listed[0]['id']}/delete", timeout=20)
    assert deleted.json() == {"status": "OK"}
    assert admin.post(f"{farm.url}/admin/rq/queue/chat:default/queued/empty", timeout=20).json() == {"status": "OK"}
    for thread in threads:
        thread.join()
    codes = [response.json()["error"]["code"] for response in responses if response.status_code == 502]
    assert codes == ["request_lost"] * 3
    assert [response.status_code for response in responses].count(200) == 8


def test_failed_job_is_shown_without_its_prompt_and_requeued_without_harm(farm: Farm, admin: requests.Session):
    farm.upstream.faults(server_error=1)
    assert farm.chat("secret prompt").status_code == 500
    failed_url = f"{farm.url}{DATA}/jobs/chat:default/failed/100/asc/1.json"
    listed = eventually(lambda: admin.get(failed_url, timeout=20).json()["jobs"])
    job = listed[-1]
    shown = admin.get(f"{farm.url}{DATA}/job/{job['id']}.json", timeout=20)
    assert "upstream_error after" in shown.json()["exc_info"]
    assert "secret prompt" not in shown.text
    assert "sim-" not in shown.text
    reset_farm(farm)
    served = farm.upstream.counters()["served"]
    assert admin.post(f"{farm.url}/admin/rq/job/{job['id']}/requeue", timeout=20).json() == {"status": "OK"}
    eventually(lambda: "no caller is waiting" in admin.get(failed_url, timeout=20).text)
    assert farm.upstream.counters()["served"] == served
    assert admin.post(f"{farm.url}/admin/rq/queue/chat:default/failed/empty", timeout=20).status_code == 200
    assert admin.get(failed_url, timeout=20).json()["jobs"] == []


@pytest.mark.parametrize("view", ["queues", "workers", "jobs"])
def test_dashboard_pages_open(farm: Farm, admin: requests.Session, view: str):
    assert admin.get(f"{farm.url}/admin/rq/0/view/{view}", timeout=20).status_code == 200
