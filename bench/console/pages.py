"""What each page of the console costs a front, Redis and the reader, with 1,000 accounts and 100,000 requests a day."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from flask import Flask
from redis import Redis

from bench.console.content import fill_farm, write_tape
from bench.console.front import SCENARIO, Front, hide_id, run_front
from bench.console.interactive import measure_interactive
from bench.farm import KillableRedis
from bench.measurement import Measurement, at_most, unbounded
from shared import keys
from web.console.pages import blueprint

#: Most loads of a page, and seconds after which it is loaded no more. CPU time is counted in hundredths of a second.
MAX_ROUNDS, PAGE_SECONDS = 10, 1.5
#: Longest CPU time of a page, in milliseconds.
MAX_PAGE_MS = 300.0
#: Longest time that Redis may be kept from relaying requests by a page, in milliseconds.
MAX_REDIS_MS = 100.0
#: Pages that need no id, in the forms that cost most; those without a query are found by themselves.
VARIANTS = (
    "/admin/accounts?sort=requests&order=desc",
    "/admin/accounts?state=cooling&state=dead&q=reader*",
    *(f"/admin/usage?by={by}" for by in ("key", "model", "pool", "credential", "time,credential")),
    *(f"/admin/usage?by={by}&range=7d" for by in ("time,key", "time,credential", "key,model")),
    "/admin/usage?by=credential&range=31d",
    "/admin/usage?by=time,credential&sort=requests",
    "/admin/requests?outcome=failed",
    "/admin/requests?model=no-such-model",
)
#: What is no page but a stream, which does not end.
STREAMS = ("/admin/live",)
#: Requests to the admin API whose cost grows with the farm.
API_PATHS = (
    "/admin/api/v1/credentials?limit=1000",
    "/admin/api/v1/logs?code=no_such_code",
    "/admin/api/v1/usage?by=time,credential",
    "/admin/api/v1/tape",
    "/admin/api/v1/queue?limit=500",
)


def measure_console(seconds: float) -> list[Measurement]:
    """CPU time of each page of the console, and when it can be used: 1,000 accounts, 100,000 requests, 500 waiting."""
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as data:
        redis = KillableRedis(Path(data) / "store")
        try:
            accounts, api_keys = fill_farm(redis.client)
            with run_front(redis, Path(data)) as front:
                of_one = list_pages_of_one(redis.client, accounts[0], api_keys[0])
                pages = (*list_pages(), *VARIANTS, *of_one)
                rows = [row for path in (*pages, *API_PATHS) for row in measure_page(front, path)]
                # The tape of two minutes is over by now.
                write_tape(redis.client, accounts, time.time())
                return rows + measure_interactive(front, Path(data), pages)
        finally:
            redis.process.terminate()
            redis.process.wait()
            shutil.rmtree(data, ignore_errors=True)


def list_pages() -> list[str]:
    """Every page of the console that needs no id."""
    app = Flask("pages")
    app.register_blueprint(blueprint)
    rules = {
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith(f"{blueprint.name}.") and "GET" in (rule.methods or ()) and not rule.arguments
    }
    return sorted(rules - set(STREAMS))


def list_pages_of_one(redis: Redis, account: str, api_key: str) -> tuple[str, ...]:
    """Pages of one account, key or request; the request is from the oldest part of the log."""
    ((_, fields),) = redis.xrange(keys.REQUEST_LOG, count=1)
    request_id = fields[b"e"].decode().split('"')[1]
    return (
        f"/admin/accounts/{account}",
        f"/admin/usage?by=time&credential={account}&range=7d",
        f"/admin/requests?credential={account}",
        f"/admin/keys/{api_key}",
        f"/admin/keys/{api_key}/edit",
        f"/admin/requests/{request_id}",
    )


def measure_page(front: Front, path: str) -> list[Measurement]:
    size = len(front.load(path))
    times, cpu, redis_cpu = list[float](), front.measure_cpu(), front.measure_redis_cpu()
    while len(times) < MAX_ROUNDS and sum(times) < PAGE_SECONDS:
        started = time.perf_counter()
        front.load(path)
        times.append(time.perf_counter() - started)
    used, used_by_redis = front.measure_cpu() - cpu, front.measure_redis_cpu() - redis_cpu
    name, milliseconds = hide_id(path), round(1000 * used / len(times), 1)
    label = f"{name}: CPU ms of the front"
    return [
        # A program may ask for a thousand entries at once; a reader gets a hundred.
        unbounded(SCENARIO, label, milliseconds)
        if path in API_PATHS
        else at_most(SCENARIO, label, milliseconds, MAX_PAGE_MS),
        at_most(SCENARIO, f"{name}: CPU ms of Redis", round(1000 * used_by_redis / len(times), 1), MAX_REDIS_MS),
        unbounded(SCENARIO, f"{name}: ms until it is there, median", round(1000 * statistics.median(times), 1)),
        unbounded(SCENARIO, f"{name}: KB", round(size / 1024)),
    ]
