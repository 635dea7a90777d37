"""No secret appears in Redis, logs, metrics or the dashboard (I9)."""

import psutil
import requests

from shared.redis_connection.client import connect
from tests.redis_dump import dump_redis
from tests.system.farm import ADMIN, KEY, Farm
from tests.upstream import first_refresh_tokens

PROMPT = "a prompt that must not be found anywhere"


def test_secrets_and_prompts_are_found_nowhere_after_the_requests(farm: Farm):
    farm.upstream.accounts(expire=True)
    for stream in (False, True):
        for _ in range(10):
            assert farm.chat(PROMPT, stream=stream).status_code == 200
    farm.upstream.faults(server_error=1)
    assert farm.chat(PROMPT).status_code == 500
    farm.upstream.reset()
    bearer = {"authorization": f"Bearer {ADMIN}"}
    pages = [
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
        "arguments": "",
    }
    secrets = ["sim-rt-", "sim-at-", KEY, ADMIN, PROMPT, "cebzcg gung zhfg", *first_refresh_tokens(1)]
    assert [(place, secret) for place, text in places.items() for secret in secrets if secret in text] == []


def test_front_does_not_have_the_secret_key(strict: Farm):
    processes = psutil.Process(strict.record.pid).children(recursive=True)
    with_key = {"web": 0, "workers": 0}
    for process in processes:
        line = " ".join(process.cmdline())
        kind = "web" if "web.gunicorn_conf" in line else "workers" if "workers" in line else ""
        if kind:
            with_key[kind] += "FARM_SECRET_KEY" in process.environ()
    assert with_key == {"web": 0, "workers": 2}
