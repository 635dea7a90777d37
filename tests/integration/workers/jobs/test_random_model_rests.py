"""Random rests, attempts and cancels on the scripts: no job is lost or doubled, and no worker idles in vain (I2)."""

import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.limits import LimitReached, encode_demand
from shared.errors import NoAllowedJob
from shared.protocol.relay_queue import queue_keys
from tests.builders import build_key, build_request
from tests.integration.workers.jobs.simulated_pool import SimulatedPool, SimulatedWorker

STEPS = 120
BANDS, MODELS, CREDENTIALS = ("interactive", "batch"), ("A", "B", "C"), (1, 2, 3, 4)
#: API key -> how many of its requests may run at once, 0 for any number.
CONCURRENCY = {"x": 0, "y": 2, "z": 1}
CHAT_QUEUE, BATCH_QUEUE = queue_keys("default")
INTERMEDIATE = f"{CHAT_QUEUE}:intermediate"
BASE = keys.fair_queue("default")
#: Where a job waits -> its `farm_lined`.
LINED = {"queue": b"1", "aside": b"aside", "held": b"held", "retry": b"retry"}
ASIDE_JOBS = [keys.set_aside("default", band) for band in BANDS]
#: Place, list or sorted set of jobs that wait there.
LISTS = [
    *(("queue", f"{BASE}:{band}:{key}") for band in BANDS for key in CONCURRENCY),
    *(("aside", f"{BASE}:{band}:{key}:{model}") for band in BANDS for key in CONCURRENCY for model in MODELS),
    *(("held", f"farm:limit:held:{key}:{band}:default") for band in BANDS for key in CONCURRENCY),
    *(("retry", name) for name in (f"{BASE}:retries", f"{BASE}:retries:batch")),
]
READ_LISTS = """
local function read(name)
    return redis.call(redis.call('TYPE', name).ok == 'zset' and 'ZRANGE' or 'LRANGE', name, 0, -1)
end
local replies = {}
for i, name in ipairs(KEYS) do
    replies[i] = read(name)
end
return replies
"""


@dataclass
class Request:
    """A request, as the test knows it."""

    id: str
    key: str
    model: str
    band: str
    #: Whether it has been started before, and the credentials that have tried it.
    was_started: bool = False
    tried: set[str] = field(default_factory=set)
    #: Whether it was refused because its model is limited, and has not been started since.
    is_returned: bool = False

    @property
    def lane(self) -> tuple[str, str]:
        return self.key, self.band

    @property
    def line(self) -> tuple[str, str, str]:
        return self.key, self.model, self.band


class RandomPool:
    """A pool with four credentials, on which random things happen."""

    def __init__(self, redis: Redis, seed: int) -> None:
        self.redis = redis
        self.random = random.Random(seed)
        self.pool = SimulatedPool(redis)
        redis.hset(keys.credentials("default"), mapping={f"c{number}": "active" for number in CREDENTIALS})
        self.workers = [self.pool.worker(number) for number in CREDENTIALS]
        self.requests: dict[str, Request] = {}
        self.running: dict[str, SimulatedWorker] = {}
        #: What BLMOVE has handed to a worker that has not begun it.
        self.popped: dict[SimulatedWorker, str] = {}
        #: Credential and model of a rest -> whether it is longer than a request may wait.
        self.rests: dict[tuple[str, str], bool] = {}
        self.cancelled: set[str] = set()
        self.count = 0

    # What happens

    def step(self) -> None:
        actions = {
            self.enqueue: 8,
            self.change_rest: 3,
            self.pop: 4,
            self.begin: 8,
            self.finish: 4,
            self.finish_and_begin: 4,
            self.retry: 2,
            self.refuse: 2,
            self.cancel: 2,
        }
        self.random.choices(list(actions), list(actions.values()))[0]()
        self.check_places()

    def enqueue(self) -> None:
        self.count += 1
        key, model = self.random.choice(list(CONCURRENCY)), self.random.choice(MODELS)
        request = Request(f"req_{self.count}", key, model, self.random.choices(BANDS, (3, 1))[0])
        limits = build_key(concurrency=CONCURRENCY[key]).model_copy(update={"id": key})
        relay = build_request(request.id, key=key, model=model, band=request.band)
        try:
            self.pool.queue.enqueue(relay, b"x", encode_demand(limits, 10, time.time()))
        except LimitReached:
            return
        self.requests[request.id] = request

    def change_rest(self) -> None:
        credential, model = f"c{self.random.choice(CREDENTIALS)}", self.random.choice(MODELS)
        if (credential, model) in self.rests:
            self.end_rest(credential, model)
        else:
            self.begin_rest(credential, model)

    def begin_rest(self, credential: str, model: str) -> None:
        is_long = self.random.random() < 0.5
        self.rests[credential, model] = is_long
        until = time.time() + (2000 if is_long else 100)
        self.redis.hset(keys.resting_models(credential), model, until)
        self.redis.zadd(keys.resting_by_pool("default"), {model: until})

    def end_rest(self, credential: str, model: str) -> None:
        self.rests.pop((credential, model), None)
        past = time.time() - 1
        self.redis.hset(keys.resting_models(credential), model, past)
        if not any(resting == model for _, resting in self.rests):
            self.redis.zadd(keys.resting_by_pool("default"), {model: past}, xx=True)

    def find_worker(self, *, busy: bool) -> SimulatedWorker | None:
        found = [worker for worker in self.workers if bool(worker.started) == busy]
        return self.random.choice(found) if found else None

    def pop(self) -> None:
        worker = self.find_worker(busy=False)
        if worker and worker not in self.popped and (job := self.redis.lmove(CHAT_QUEUE, INTERMEDIATE)):
            self.popped[worker] = job.decode()

    def begin(self, worker: SimulatedWorker | None = None) -> None:
        worker = worker or self.find_worker(busy=False)
        if worker is None:
            return
        job = self.popped.pop(worker, "")
        while self.must_look_again(worker, job):
            job = ""
        self.note_start(worker)

    def must_look_again(self, worker: SimulatedWorker, job: str) -> bool:
        try:
            worker.start_or_raise(job)
        except NoAllowedJob as error:
            worker.started = None
            return error.seconds == 0
        return False

    def note_start(self, worker: SimulatedWorker) -> None:
        if worker.started is None:
            self.check_nothing_for(worker)
            return
        request = self.requests[worker.started.job_id]
        assert request.id not in self.running
        assert (worker.lease.credential_id, request.model) not in self.rests
        if not request.was_started:
            before = [
                other.id
                for other in self.requests.values()
                if other.line == request.line and other.id not in self.running
            ]
            before = [id_ for id_ in before if self.requests[id_].is_returned or not self.requests[id_].was_started]
            assert before[0] == request.id, f"{before} of {request.line}"
        request.was_started, request.is_returned = True, False
        self.running[request.id] = worker

    def end(self, worker: SimulatedWorker) -> Request:
        assert worker.started is not None
        del self.running[worker.started.job_id]
        return self.requests[worker.started.job_id]

    def finish(self) -> None:
        if worker := self.find_worker(busy=True):
            del self.requests[self.end(worker).id]
            assert worker.started is not None
            self.pool.bookkeeping.finish(worker.rq, worker.started, ok=True)
            worker.started = None

    def finish_and_begin(self) -> None:
        if worker := self.find_worker(busy=True):
            del self.requests[self.end(worker).id]
            worker.finish_and_start(self.random.choice((0.1, 1, 5)))
            if worker.started is None:
                self.begin(worker)
            else:
                self.note_start(worker)

    def retry(self) -> None:
        if worker := self.find_worker(busy=True):
            request = self.end(worker)
            request.tried.add(worker.lease.credential_id)
            worker.requeue()
            worker.started = None

    def refuse(self) -> None:
        if worker := self.find_worker(busy=True):
            request = self.end(worker)
            self.begin_rest(worker.lease.credential_id, request.model)
            request.tried.add(worker.lease.credential_id)
            request.is_returned = True
            worker.requeue(is_model_limited=True)
            worker.started = None

    def cancel(self) -> None:
        waiting = [id_ for id_ in self.requests if id_ not in self.running]
        if waiting:
            id_ = self.random.choice(waiting)
            assert self.pool.queue.cancel("default", id_) == "withdrawn"
            del self.requests[id_]
            self.cancelled.add(id_)

    # What must hold

    def read_lists(self, names: list[str]) -> list[list[str]]:
        replies = self.redis.eval(READ_LISTS, len(names), *names)
        return [[job.decode() for job in jobs] for jobs in replies]

    def read_places(self) -> dict[str, list[str]]:
        """Place -> the jobs that wait there."""
        places: dict[str, list[str]] = {place: [] for place in LINED}
        for (place, _), jobs in zip(LISTS, self.read_lists([name for _, name in LISTS]), strict=True):
            places[place] += jobs
        return places

    def check_places(self) -> None:
        """Each job waits in one place, and RQ lists it once, where that place says."""
        places = self.read_places()
        assert sorted(id_ for jobs in places.values() for id_ in jobs) == sorted(set(self.requests) - set(self.running))
        for place, jobs in places.items():
            lined = [self.redis.hget(f"rq:job:{id_}", "farm_lined") for id_ in jobs[-1:]]
            assert lined == [LINED[place]] * len(lined)
        chat, intermediate, batch, *aside = self.read_lists([CHAT_QUEUE, INTERMEDIATE, BATCH_QUEUE, *ASIDE_JOBS])
        listed = Counter([*chat, *intermediate, *batch])
        in_queues = [*places["queue"], *places["aside"], *places["retry"]]
        assert {id_: listed[id_] for id_ in in_queues} == dict.fromkeys(in_queues, 1)
        assert set(listed) - set(in_queues) <= {*self.popped.values(), *self.cancelled}
        assert {*places["aside"], *places["retry"]} <= set(batch)
        assert sorted(itertools.chain(*aside)) == sorted(places["aside"])
        self.check_limits(places)

    def check_limits(self, places: dict[str, list[str]]) -> None:
        """No key has more running than it may, and none of its requests is held while it may have more."""
        for key, limit in CONCURRENCY.items():
            started = {id_.decode() for id_ in self.redis.smembers(f"farm:limit:started:{key}")} if limit else set()
            running = {id_ for id_ in self.running if self.requests[id_].key == key}
            assert not limit or (running <= started and len(started) <= limit)
            for id_ in places["held"]:
                held = self.requests[id_]
                if held.key != key:
                    continue
                queued = {other for other in places["queue"] if self.requests[other].lane == held.lane}
                aside = {other for other in places["aside"] if self.requests[other].line == held.line}
                assert len(started | queued | aside) >= limit, f"{id_} of {key}: held in vain"

    def check_nothing_for(self, worker: SimulatedWorker) -> None:
        """A worker that was told that there is nothing may run none of the waiting jobs."""
        places, credential = self.read_places(), worker.lease.credential_id
        for id_ in (*places["queue"], *places["aside"]):
            assert (credential, self.requests[id_].model) in self.rests, f"{credential} could run {id_}"
        for id_ in places["retry"]:
            request = self.requests[id_]
            is_resting = (credential, request.model) in self.rests
            assert is_resting or (credential in request.tried and self.has_untried(request)), f"{credential}: {id_}"

    def has_untried(self, request: Request) -> bool:
        names = {f"c{number}" for number in CREDENTIALS} - request.tried
        return any(not self.rests.get((name, request.model)) for name in names)

    def drain(self) -> None:
        for credential, model in list(self.rests):
            self.end_rest(credential, model)
        for _ in range(10 * self.count):
            for worker in self.workers:
                if worker.started:
                    del self.requests[self.end(worker).id]
                    worker.finish_and_start()
                    self.note_start(worker)
                else:
                    self.begin(worker)
            self.check_places()
            if not self.requests:
                break
        assert not self.requests
        for worker in self.workers:
            self.begin(worker)
        assert self.pool.queue.count_waiting("default") == 0
        assert self.redis.keys(f"{BASE}:*") == []


@pytest.mark.parametrize("seed", range(3))
def test_no_job_is_lost_and_no_worker_idles_in_vain(redis: Redis, seed: int):
    pool = RandomPool(redis, seed)
    for _ in range(STEPS):
        pool.step()
    pool.drain()
