"""Metrics show the counters of all processes and the current gauges."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import clock, keys
from shared.alerts.notices import Alert
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.files.directory_store import DirectoryStore
from shared.files.file_store import FileBounds, Files
from shared.observability import counters
from shared.observability.pool_status import read_pool_statuses
from shared.protocol.pool_pause import pause_pool
from shared.protocol.relay_queue import RelayQueue
from tests.builders import build_request
from tests.console_batches import add_batch
from web.routes.metrics import render


def read_samples(redis: Redis) -> dict[str, float]:
    """`name{labels}` -> value, as the metrics route renders them."""
    samples = {}
    for family in text_string_to_metric_families(render(redis, ["default"]).decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}"] = sample.value
    return samples


def test_counts_of_all_processes_add_up(redis: Redis):
    for _ in range(2):
        process = counters.Counters()
        process.increment("attempts", "default", "ok")
        process.increment("attempts", "default", "ok")
        process.observe("request_seconds", 0.3)
        process.flush(redis)
        process.flush(redis)
    samples = read_samples(redis)
    assert samples["farm_attempts_total{outcome=ok,pool=default}"] == 4
    assert samples["farm_request_seconds_count{}"] == 2
    assert samples["farm_request_seconds_sum{}"] == pytest.approx(0.6)
    assert samples["farm_request_seconds_bucket{le=0.25}"] == 0
    assert samples["farm_request_seconds_bucket{le=0.5}"] == 2
    assert samples["farm_request_seconds_bucket{le=+Inf}"] == 2


def test_bytes_of_bodies_are_shown_where_they_are_held(redis: Redis):
    queue = RelayQueue(redis, 1, 1000)
    queue.enqueue(build_request(), b"x" * 400)
    redis.zadd(keys.FRONTS, {"alive": clock.now(), "other": clock.now(), "dead": clock.now() - 60})
    redis.hset(keys.FRONT_BODY_BYTES, mapping={"alive": 5_000, "other": 700, "dead": 9_000})
    samples = read_samples(redis)
    assert samples["farm_body_bytes{place=redis}"] == 400
    assert samples["farm_body_bytes{place=fronts}"] == 5_700
    queue.withdraw("default", "req_1")
    assert read_samples(redis)["farm_body_bytes{place=redis}"] == 0


def test_credentials_out_of_service_are_counted_by_reason(redis: Redis, unsealer: Unsealer):
    store = Credentials(redis)
    ids = [store.add("default", f"token-{number}")[0] for number in range(5)]
    store.set_state("default", ids[0], "cooling", "no_token: invalid_target", clock.now() + 60)
    store.set_state("default", ids[1], "cooling", "no_token: http_418", clock.now() + 60)
    store.set_state("default", ids[2], "disabled", "by a person")
    store.set_state("default", ids[3], "foreign", "belongs to https://elsewhere.example")
    samples = {name: value for name, value in read_samples(redis).items() if "out_of_service" in name}
    assert samples == {
        "farm_credentials_out_of_service{pool=default,reason=no_token,state=cooling}": 2,
        "farm_credentials_out_of_service{pool=default,reason=by_a_person,state=disabled}": 1,
        "farm_credentials_out_of_service{pool=default,reason=other,state=foreign}": 1,
    }


def test_pool_whose_credentials_all_rest_tells_until_when(redis: Redis, unsealer: Unsealer):
    store = Credentials(redis)
    ids = [store.add("default", f"token-{number}")[0] for number in range(2)]
    for credential_id, seconds in zip(ids, (900, 500), strict=True):
        assert read_samples(redis)["farm_resting_seconds{pool=default}"] == 0
        store.set_state("default", credential_id, "cooling", "allowance_used", clock.now() + seconds)
    assert 400 < read_samples(redis)["farm_resting_seconds{pool=default}"] <= 500
    (status,) = read_pool_statuses(redis, ["default"])
    assert ["all of its credentials rest" in warning for warning in status.warnings] == [True]
    assert status.to_dict()["resting_until"] == pytest.approx(clock.now() + 500, abs=100)
    store.enable("default", ids[0])
    assert read_samples(redis)["farm_resting_seconds{pool=default}"] == 0
    assert read_pool_statuses(redis, ["default"])[0].warnings == []


def test_counts_that_cannot_be_flushed_are_kept(redis: Redis):
    process = counters.Counters()
    process.increment("collisions")
    with pytest.raises(AttributeError):
        process.flush(None)
    process.flush(redis)
    assert read_samples(redis)["farm_collisions_total{}"] == 1


def test_counts_whose_reply_was_lost_are_added_once(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    process = counters.Counters()
    process.increment("collisions")
    execute = redis.execute_command

    def lose_reply(*command: object, **options: object) -> object:
        execute(*command, **options)
        raise RedisConnectionError("the reply was lost")

    with monkeypatch.context() as broken:
        broken.setattr(redis, "execute_command", lose_reply)
        with pytest.raises(RedisConnectionError):
            process.flush(redis)
    assert process.value("collisions") == 1
    process.increment("collisions")
    process.flush(redis)
    assert process.value("collisions") == 0
    assert read_samples(redis)["farm_collisions_total{}"] == 2


def test_every_metric_is_rendered_even_at_zero(redis: Redis):
    families = {f.name for f in text_string_to_metric_families(render(redis, ["default"]).decode())}
    assert {f"farm_{name}" for name in counters.METRICS} <= families
    assert {"farm_queue_depth", "farm_workers", "farm_credentials", "farm_utilisation"} <= families


def test_raised_alerts_are_counted_by_rule_while_they_are_watched_for(redis: Redis):
    for pool in ("a", "b"):
        alert = Alert("upstream_down", pool, "", "the upstream is down", "the upstream was down")
        redis.hset(keys.ALERTS, alert.id, alert.encode())
    assert not [name for name in read_samples(redis) if name.startswith("farm_alerts{")]
    redis.set(keys.ALERT_LEASE, "p1")
    samples = read_samples(redis)
    assert samples["farm_alerts{rule=upstream_down}"] == 2
    assert samples["farm_alerts{rule=account_dead}"] == 0


def test_unfinished_batches_are_counted_by_state(redis: Redis):
    for status in ("in_progress", "in_progress", "completed"):
        add_batch(redis, "k", status)
    samples = read_samples(redis)
    assert samples["farm_batches{state=in_progress}"] == 2
    assert samples["farm_batches{state=validating}"] == 0 and "farm_batches{state=completed}" not in samples


def test_files_and_their_bytes_are_told_by_purpose(redis: Redis, tmp_path: Path):
    files = Files(redis, DirectoryStore(tmp_path), FileBounds(1000, 10, 60))
    assert read_samples(redis)["farm_files{purpose=batch}"] == 0
    ids = []
    for purpose, key in (("batch", "k1"), ("batch", "k2"), ("batch_output", "k1")):
        with files.create() as writer:
            writer.write(b"12345")
            ids.append(files.commit(writer, key, "a", purpose))
    files.delete(ids[0])
    files.delete(ids[0])
    samples = read_samples(redis)
    assert (samples["farm_files{purpose=batch}"], samples["farm_file_bytes{purpose=batch}"]) == (1, 5)
    assert (samples["farm_files{purpose=batch_output}"], samples["farm_file_bytes{purpose=batch_output}"]) == (1, 5)


def test_gauges_show_the_current_state(redis: Redis, unsealer: Unsealer):
    store = Credentials(redis)
    ids = store.import_lines("default", ["a", "b", "c"]).new_ids
    store.set_state("default", ids[0], "dead")
    redis.rpush("rq:queue:chat:default", "x")
    redis.zadd("rq:deferred:batch:default", {"y": 1})
    for name, busy, idle, utilisation in (("p1", 3, 1, 0.5), ("p2", 0, 4, 0.0)):
        redis.zadd(keys.PROCESSES, {name: 1})
        report = {"busy:default": busy, "idle:default": idle, "utilisation:default": utilisation}
        redis.hset(keys.process(name), mapping=report)
    pause_pool(redis, "default", "tests")
    samples = read_samples(redis)
    assert samples["farm_pool_paused{pool=default}"] == 1
    assert samples["farm_credentials{pool=default,state=dead}"] == 1
    assert samples["farm_credentials{pool=default,state=active}"] == 2
    assert samples["farm_workers{pool=default,state=busy}"] == 3
    assert samples["farm_workers{pool=default,state=idle}"] == 5
    assert samples["farm_queue_depth{band=interactive,pool=default}"] == 1
    assert samples["farm_requests_held{band=batch,pool=default}"] == 1
    assert samples["farm_utilisation{pool=default}"] == 0.25
