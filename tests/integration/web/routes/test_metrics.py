import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from shared import keys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability import counters
from web.routes.metrics import render


def rendered(redis: Redis) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(render(redis, ["default"]).decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_counts_of_all_processes_add_up(redis: Redis):
    for _ in range(2):
        mine = counters.Counters()
        mine.increment("attempts", "default", "ok")
        mine.increment("attempts", "default", "ok")
        mine.observe("request_seconds", 0.3)
        mine.flush(redis)
        mine.flush(redis)
    found = rendered(redis)
    assert found["farm_attempts_total{outcome=ok,pool=default}"] == 4
    assert found["farm_request_seconds_count{}"] == 2
    assert found["farm_request_seconds_sum{}"] == pytest.approx(0.6)
    assert found["farm_request_seconds_bucket{le=0.25}"] == 0
    assert found["farm_request_seconds_bucket{le=0.5}"] == 2
    assert found["farm_request_seconds_bucket{le=+Inf}"] == 2


def test_a_count_that_can_not_be_handed_over_is_kept(redis: Redis):
    mine = counters.Counters()
    mine.increment("collisions")
    with pytest.raises(AttributeError):
        mine.flush(None)
    mine.flush(redis)
    assert rendered(redis)["farm_collisions_total{}"] == 1


def test_every_counted_metric_is_rendered_even_at_zero(redis: Redis):
    families = {f.name for f in text_string_to_metric_families(render(redis, ["default"]).decode())}
    assert {f"farm_{name}" for name in counters.METRICS} <= families
    assert {"farm_queue_depth", "farm_workers", "farm_credentials", "farm_utilisation"} <= families


def test_gauges_show_what_is_so_now(redis: Redis, unsealer: Unsealer):
    store = Credentials(redis)
    ids = store.import_lines("default", ["a", "b", "c"]).new_ids
    store.set_state("default", ids[0], "dead")
    redis.rpush("rq:queue:chat:default", "x")
    for name, busy, idle, utilisation in (("p1", 3, 1, 0.5), ("p2", 0, 4, 0.0)):
        redis.zadd(keys.PROCESSES, {name: 1})
        report = {"busy:default": busy, "idle:default": idle, "utilisation:default": utilisation}
        redis.hset(keys.process(name), mapping=report)
    found = rendered(redis)
    assert found["farm_credentials{pool=default,state=dead}"] == 1
    assert found["farm_credentials{pool=default,state=active}"] == 2
    assert found["farm_workers{pool=default,state=busy}"] == 3
    assert found["farm_workers{pool=default,state=idle}"] == 5
    assert found["farm_queue_depth{band=interactive,pool=default}"] == 1
    assert found["farm_utilisation{pool=default}"] == 0.25
