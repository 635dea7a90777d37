"""No secret appears in Redis, on its disk, in logs, the process list, metrics, the audit log or the dashboard (I9)."""

import psutil
import requests

from bench.processes import read_command_line
from shared.redis_connection.client import connect
from tests.redis_dump import dump_redis
from tests.system.farm import ADMIN, KEY, Farm
from tests.upstream import first_refresh_tokens

PROMPT = "a prompt that must not be found anywhere"
#: An admin token of another farm, pasted by mistake.
WRONG_TOKEN = "admin-a-token-of-another-farm"


def read_arguments(farm: Farm) -> str:
    """What the process list shows of the farm to every user of the machine."""
    launcher = psutil.Process(farm.record.pid)
    lines = [read_command_line(process) for process in (launcher, *launcher.children(recursive=True))]
    assert {name for name in ("valkey-server", "gunicorn", "workers") for line in lines if name in line} == {
        "valkey-server",
        "gunicorn",
        "workers",
    }
    return "\n".join(lines)


def read_disk(farm: Farm) -> str:
    """What Redis has written to disk: every command since the last rewrite."""
    files = [path for path in (farm.data / "redis").rglob("*") if path.is_file()]
    text = " ".join(path.read_bytes().decode("latin-1") for path in files)
    assert "farm:credential:" in text
    return text


def present_admin_tokens(farm: Farm) -> str:
    """Logs in, and presents a wrong token in each way; returns the session's secret."""
    session = requests.Session()
    assert session.post(farm.url + "/admin/login", data={"token": ADMIN}, timeout=20).status_code == 200
    assert session.post(farm.url + "/admin/login", data={"token": WRONG_TOKEN}, timeout=20).status_code == 401
    bearer = {"authorization": f"Bearer {WRONG_TOKEN}"}
    assert requests.get(farm.url + "/admin/api/v1/live", headers=bearer, timeout=20).status_code == 401
    return str(session.cookies["farm_admin"])


def test_secrets_and_prompts_are_found_nowhere_after_the_requests(farm: Farm):
    farm.upstream.accounts(expire=True)
    for stream in (False, True):
        for _ in range(10):
            assert farm.chat(PROMPT, stream=stream).status_code == 200
    farm.upstream.faults(server_error=1)
    assert farm.chat(PROMPT).status_code == 500
    farm.upstream.reset()
    session_secret = present_admin_tokens(farm)
    bearer = {"authorization": f"Bearer {ADMIN}"}
    pages = [
        farm.admin("GET", "/audit").text,
        farm.admin("GET", "/sessions").text,
        requests.get(farm.url + "/metrics", timeout=20).text,
        requests.get(farm.url + "/api/status", timeout=20).text,
    ]
    pages += [
        requests.get(f"{farm.url}/admin/rq/0/data/{name}.json", headers=bearer, timeout=20).text
        for name in ("queues", "workers", "jobs/chat:default/failed/100/asc/1")
    ]
    places = {
        "redis": dump_redis(connect(farm.redis_url())),
        "log": farm.log(),
        "pages": " ".join(pages),
        "list": str(farm.json("credentials", "list")) + str(farm.json("keys", "list")),
        "arguments": read_arguments(farm),
        "disk": read_disk(farm),
    }
    tokens = ["sim-rt-", "sim-at-", KEY, ADMIN, WRONG_TOKEN, session_secret, *first_refresh_tokens(1)]
    assert [(place, token) for place, text in places.items() for token in tokens if token in text] == []
    # A body is in Redis, and so on its disk, while its request waits.
    texts = [(place, text) for place, text in places.items() if place != "disk"]
    assert [(place, part) for place, text in texts for part in (PROMPT, "cebzcg gung zhfg") if part in text] == []


def test_front_does_not_have_the_secret_key(strict: Farm):
    processes = psutil.Process(strict.record.pid).children(recursive=True)
    with_key = {"web": 0, "workers": 0}
    for process in processes:
        line = read_command_line(process)
        kind = "web" if "web.gunicorn_conf" in line else "workers" if "workers" in line else ""
        if kind:
            with_key[kind] += "FARM_SECRET_KEY" in process.environ()
    # The supervisor, the worker process and the token refresher.
    assert with_key == {"web": 0, "workers": 3}


def test_urls_of_alert_receivers_stay_with_the_workers(strict: Farm):
    """A test goes to the workers and fails, because nobody listens; nothing shows more of the URL than its host."""
    result = strict.command("alerts", "test")
    assert result.returncode == 1
    assert result.stdout.startswith("json://127.0.0.1:9/…: ")
    page = requests.get(
        f"{strict.url}/admin/api/v1/alerts", headers={"authorization": f"Bearer {ADMIN}"}, timeout=20
    ).text
    assert "json://127.0.0.1:9/…" in page
    assert "hook-secret" not in result.stdout + result.stderr + page + strict.log() + read_disk(strict)
    fronts = [psutil.Process(pid) for pid in {process.pid for process in strict.processes("gunicorn")}]
    assert not any("FARM_ALERT_URLS" in front.environ() for front in fronts)
