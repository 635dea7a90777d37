"""A farm as pictures show it: a real one under load, with the past day of one that has been running for long."""

import json
import math
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from redis import Redis

from shared import keys
from shared.observability.account_time.account_hours import list_hours
from shared.observability.counters import BUCKET_BOUNDS_SECONDS
from shared.observability.samples import HISTOGRAMS, Totals
from shared.redis_connection.client import connect
from tests.builders import build_log_entry
from tests.system.farm import ADMIN, Farm, chat_body, start_farm
from tests.upstream import start_simulator
from tests.waiting import eventually

ACCOUNTS, POOL, MODEL = 24, "default", "sim-translate"
#: Streams of four seconds.
PACE = ("--accounts", str(ACCOUNTS), "--rotate", "--delay", "0.4", "--chunks", "30", "--chunk-delay", "0.12")
#: API key -> its settings, and how many clients use it all the time.
KEYS: dict[str, tuple[dict[str, Any], int]] = {
    "browser extension": ({"weight": 2, "rpm": 2000, "note": "pages at once"}, 18),
    "subtitles": ({"concurrency": 12}, 9),
    "books": ({"band": "batch", "quota_tokens": 2_000_000, "quota_reset": "daily"}, 12),
}
#: Bucket of the histogram of waits -> share of the past requests.
WAITS = {5: 0.5, 7: 0.3, 8: 0.17, 9: 0.03}
#: Lines of batches: one that has ended, one that runs for as long as pictures are taken.
BATCHES = {"chapter.jsonl": 24, "book.jsonl": 4000}
#: Requests of the past day that are in the log; seconds under load before anything is shown.
PAST_REQUESTS, WARM_UP_SECONDS = 4000, 90.0


@dataclass
class DemoFarm:
    """The farm, and ids of what is worth showing."""

    farm: Farm
    redis: Redis
    accounts: list[str]
    keys: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    #: Ids, in the order of BATCHES.
    batches: list[str] = field(default_factory=list)

    @property
    def token(self) -> str:
        return ADMIN

    def find_account(self, state: str) -> str:
        return str(next(record["id"] for record in self.farm.credentials() if record["state"] == state))

    def find_retried_request(self) -> str:
        entries = self.farm.admin("GET", "/logs", params={"limit": 500}).json()["data"]
        return str(next(entry["request"] for entry in entries if entry["tried"] and entry["ahead"]))


@contextmanager
def run_demo_farm(folder: Path) -> Iterator[DemoFarm]:
    """Ends the farm and its load on the way out."""
    simulator, upstream = start_simulator(*PACE)
    settings = {"FARM_REFUSAL_PATIENCE": "3", "FARM_COOLING_LIMIT": "600"}
    farm = start_farm(folder, upstream, ACCOUNTS, **settings)
    has_ended = threading.Event()
    try:
        demo = DemoFarm(farm, connect(farm.redis_url()), [record["id"] for record in farm.credentials()])
        prepare(demo)
        write_past(demo)
        create_batches(demo)
        for name, (_, clients) in KEYS.items():
            for _ in range(clients):
                threading.Thread(target=send_requests, args=(farm, demo.secrets[name], has_ended)).start()
        go_through_a_bad_minute(demo)
        yield demo
    finally:
        has_ended.set()
        farm.command("stop")
        simulator.terminate()
        simulator.communicate()


def prepare(demo: DemoFarm) -> None:
    """Labels of the accounts, and keys."""
    for number, id_ in enumerate(demo.accounts, 1):
        demo.farm.admin("PATCH", f"/credentials/{id_}", json={"label": f"translator {number}"})
    for name, (values, _) in KEYS.items():
        made = demo.farm.admin("POST", "/keys", json={"name": name, **values}).json()
        demo.keys[name], demo.secrets[name] = made["id"], made["key"]


def create_batches(demo: DemoFarm) -> None:
    """Those of BATCHES, of which the first has ended, and one whose input is invalid."""
    headers = {"authorization": f"Bearer {demo.secrets['books']}"}

    def post(path: str, **options: Any) -> Any:
        return requests.post(f"{demo.farm.url}/v1/{path}", headers=headers, timeout=60, **options).json()

    def create(filename: str, content: bytes) -> str:
        uploaded = post("files", data={"purpose": "batch"}, files={"file": (filename, content)})
        batch = {"input_file_id": uploaded["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str(post("batches", json={**batch, "metadata": {"title": filename.partition(".")[0]}})["id"])

    def has_ended(batch_id: str) -> bool:
        return demo.farm.admin("GET", f"/batches/{batch_id}").json()["status"] == "completed"

    create("notes.jsonl", b'{"custom_id": "note-1", "url": "/v1/chat/completions"}\n')
    for filename, count in BATCHES.items():
        lines = [build_batch_line(f"paragraph-{number}") for number in range(count)]
        demo.batches.append(create(filename, "".join(lines).encode()))
        if len(demo.batches) == 1:
            eventually(lambda: has_ended(demo.batches[0]), within=120)


def build_batch_line(custom_id: str) -> str:
    body = chat_body(f"{custom_id}: to be or not to be")
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"


def send_requests(farm: Farm, secret: str, has_ended: threading.Event) -> None:
    """One client that sends a request as soon as it has the reply to the one before."""
    while not has_ended.is_set():
        try:
            with requests.post(
                f"{farm.url}/v1/chat/completions",
                json=chat_body("to be or not to be, that is the question", stream=True),
                headers={"authorization": f"Bearer {secret}"},
                timeout=300,
            ) as response:
                len(response.content)
        except requests.RequestException:
            time.sleep(1)


def go_through_a_bad_minute(demo: DemoFarm) -> None:
    """Two accounts die, one is disabled, some are limited for a while, and the upstream is down for some seconds."""
    upstream = demo.farm.upstream
    time.sleep(WARM_UP_SECONDS / 3)
    upstream.faults(server_error=1)
    eventually(lambda: demo.farm.live_pool()["upstream_down"])
    upstream.faults()
    eventually(lambda: not demo.farm.live_pool()["upstream_down"])
    for number in (0, 1):
        upstream.accounts(kill=number)
    demo.farm.admin("PATCH", f"/credentials/{demo.accounts[5]}", json={"state": "disabled"})
    upstream.faults(rate_limit=0.08, retry_after=240)
    eventually(lambda: len([r for r in demo.farm.credentials() if r["state"] == "cooling"]) >= 3)
    upstream.faults()
    eventually(lambda: "dead" in [record["state"] for record in demo.farm.credentials()], within=120)
    time.sleep(WARM_UP_SECONDS)


# The past


def write_past(demo: DemoFarm) -> None:
    """What a farm that has been running for a day has in Redis: its log, its samples, the hours of its accounts."""
    dice = random.Random(7)
    write_log(demo, dice)
    write_samples(demo, dice)
    for hour in list_hours()[:-1]:
        for number, id_ in enumerate(demo.accounts):
            busy = int(3600 * min(0.99, day_curve(hour) * dice.uniform(0.9, 1.1)))
            cooling = 600 if number % 9 == 4 else 0
            fields = {f"b{id_}": max(0, busy - cooling), f"c{id_}": cooling, f"i{id_}": 3600 - max(busy, cooling)}
            demo.redis.hset(keys.account_seconds(hour), mapping=fields)


def day_curve(at: float) -> float:
    """How busy the farm is at a time of the day: 0 to 1."""
    return 0.55 - 0.4 * math.cos(2 * math.pi * ((at / 3600) % 24 - 3) / 24)


def write_log(demo: DemoFarm, dice: random.Random) -> None:
    now, names = time.time(), list(demo.keys)
    times = sorted(now - 86_000 * (1 - dice.random() ** 0.7) - 60 for _ in range(PAST_REQUESTS))
    with demo.redis.pipeline(transaction=False) as pipe:
        for number, at in enumerate(times):
            name = dice.choices(names, (5, 2, 3))[0]
            is_refused, wait = dice.random() < 0.004, int(dice.expovariate(1 / 900))
            first = wait + dice.randrange(380, 620)
            entry = build_log_entry(
                number,
                key=demo.keys[name],
                pool=POOL,
                model=MODEL,
                endpoint="/chat/completions",
                credential="" if is_refused else dice.choice(demo.accounts),
                status=429 if is_refused else 200,
                code="queue_timeout" if is_refused else "",
                end="" if is_refused else "done",
                band="batch" if name == "books" else "interactive",
                attempts=0 if is_refused else 1,
                queue_ms=wait,
                first_ms=0 if is_refused else first,
                total_ms=first + dice.randrange(2500, 4500),
                prompt_tokens=dice.randrange(200, 900),
                completion_tokens=0 if is_refused else dice.randrange(150, 800),
            )
            pipe.xadd(keys.REQUEST_LOG, {"e": entry.encode()}, id=f"{int(at * 1000)}-{number}")
        pipe.execute()


def write_samples(demo: DemoFarm, dice: random.Random) -> None:
    """Totals of each minute of the last hour, in place of those since the start; the farm's own go on from 0."""
    minutes = [build_minute(minute, dice) for minute in range(58)]
    demo.redis.delete(keys.samples(60))
    for number, (work, _, _) in enumerate(minutes):
        later = minutes[number + 1 :]
        seconds = {name: -sum(each[0][name] for each in later) for name in work}
        served = -sum(each[1] for each in later)
        waits = [0.0] * (len(BUCKET_BOUNDS_SECONDS) + 1)
        for bucket, share in WAITS.items():
            waits[bucket] = float(int(served * share))
        busy = int(work["busy"] / 60)
        present = {"waiting": minutes[number][2], "held": 0, "busy": busy, "workers": ACCOUNTS}
        histograms = dict.fromkeys(HISTOGRAMS, waits)
        totals = Totals({POOL: {"200": served}}, {POOL: seconds}, histograms, {POOL: present})
        at = (int(time.time()) // 60 - 59 + number) * 60_000
        demo.redis.xadd(keys.samples(60), {"e": json.dumps(vars(totals))}, id=f"{at}-0")


def build_minute(minute: int, dice: random.Random) -> tuple[dict[str, float], int, int]:
    """Account-seconds by what workers did, requests served, and requests waiting at its end."""
    share = 0.86 + 0.1 * math.sin(minute / 7) + dice.uniform(-0.03, 0.03)
    shares = {"busy": share, "idle": 0.97 - share, "idle_waiting": 0.001, "resting": 0.02, "refreshing": 0.008}
    work = {name: ACCOUNTS * 60 * max(0.0, part) for name, part in shares.items()}
    return work, int(ACCOUNTS * 60 * share / 4), dice.randrange(14)
