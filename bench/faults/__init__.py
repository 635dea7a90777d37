"""Faults under load: each row breaks something while clients stream, and checks what must hold.

A row takes a FaultScale, so that the test suite can run the same rows at a smaller size.
"""

from collections.abc import Callable

from bench.faults import batches, clients, failover, poison, processes, restarts, rotation, soak, store, upstream
from bench.faults.scale import SMALL, FaultScale
from bench.measurement import Measurement

ROWS: dict[str, Callable[[FaultScale], list[Measurement]]] = {
    "mixed": upstream.measure_mixed_errors,
    "dead": upstream.measure_dead_accounts,
    "refusing": upstream.measure_refusing_endpoint,
    "poison": poison.measure_poison,
    "cuts": upstream.measure_cut_streams,
    "killed-workers": processes.measure_killed_workers,
    "killed-host": processes.measure_killed_host,
    "killed-front": processes.measure_killed_front,
    "reloaded-front": processes.measure_reloaded_front,
    "reload": restarts.measure_reload,
    "stop": restarts.measure_stop,
    "rolling": restarts.measure_rolling_hosts,
    "killed-redis": store.measure_killed_redis,
    "slow-redis": store.measure_slow_redis,
    "full-redis": store.measure_full_redis,
    "failover": failover.measure_failover,
    "killed-pubsub": store.measure_killed_pubsub,
    "frozen": processes.measure_frozen_worker,
    "batch": batches.measure_killed_batch,
    "rotation": rotation.measure_killed_workers,
    "killed-refresher": rotation.measure_killed_refresher,
    "leavers": clients.measure_leavers,
    "cut-clients": clients.measure_cut_clients,
    "slow-readers": clients.measure_slow_readers,
    "soak": soak.measure_soak,
}

__all__ = ["ROWS", "SMALL", "FaultScale"]
