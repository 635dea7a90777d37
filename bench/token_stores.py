"""Time from a token endpoint's answer until the rotated token is stored, read off the farm's own histograms."""

import time

from bench.farm import MeasuredFarm, run_farm
from bench.faults.injection import in_background
from bench.faults.scale import FaultScale, run_streams
from bench.histograms import Buckets, count_observations, find_quantile, subtract
from bench.measurement import Measurement, at_least, at_most
from bench.token_times import STORED, list_quantiles, read_token_times
from shared.credentials.store import Credentials
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations

SCENARIO = "token-stores"
ACCOUNTS = 50
#: What the median until Redis has the token is to stay below in an idle farm.
MAX_MEDIAN_MS = 2.0
#: Seconds between two refreshes: 1,000 accounts whose access tokens live ten minutes have one every 0.6 s.
INTERVAL_SECONDS = 0.1
#: Seconds that a stream takes; a refresh waits for that of its credential.
STREAM_SECONDS = 0.5
#: Each process sends its counts once a second.
FLUSH_SECONDS = 3.0


def measure_token_stores(seconds: float) -> list[Measurement]:
    """Refresh tokens rotated one after another, in an idle farm and beside streams on half of its accounts."""
    scale = FaultScale(accounts=ACCOUNTS, clients=ACCOUNTS // 2, stream=STREAM_SECONDS, pieces=10)
    with run_farm(ACCOUNTS, *scale.pace, "--rotate") as farm:
        idle = refresh_for(farm, seconds)

        def load_farm() -> None:
            run_streams(farm, scale, seconds=seconds)

        with in_background(load_farm):
            loaded = refresh_for(farm, seconds)
    median = round(1000 * find_quantile(idle[STORED], 0.5), 2)
    return [
        at_least(SCENARIO, "refreshes, idle", count_observations(idle[STORED]), 1),
        *list_quantiles(SCENARIO, "ms, idle,", idle),
        at_most(SCENARIO, "ms, idle, until Redis has the token, median", median, MAX_MEDIAN_MS),
        at_least(SCENARIO, "refreshes, with streams", count_observations(loaded[STORED]), 1),
        *list_quantiles(SCENARIO, "ms, with streams,", loaded),
    ]


def refresh_for(farm: MeasuredFarm, seconds: float) -> dict[str, Buckets]:
    """Refreshes one credential after another; returns what the histograms have counted meanwhile."""
    redis = farm.redis.client
    operations = CredentialOperations(redis)
    ids = [credential.id for credential in Credentials(redis).list(["default"])]
    before = read_token_times(farm)
    done, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        operations.request(CredentialOperation("default", ids[done % len(ids)], "refresh", ""))
        done += 1
        time.sleep(INTERVAL_SECONDS)

    time.sleep(FLUSH_SECONDS)
    return {name: subtract(buckets, before[name]) for name, buckets in read_token_times(farm).items()}
