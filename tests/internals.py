"""Private state that tests have no public way to read or set; no other test module touches any."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import gevent
import pytest
from gevent.event import Event
from redis import Redis
from rq.job import Job
from werkzeug.routing import Rule

from launcher.processes.up import Farm
from shared.api_keys.admin_tokens import AdminToken, AdminTokens
from shared.api_keys.store import ApiKeys
from shared.batches.batch_store import Batches
from shared.files.file_store import Files
from shared.observability.counters import Counters
from shared.protocol.relay_queue import RelayQueue
from shared.redis_connection.auto_pipeline import AutoPipeline
from web.batches.batch_runner import BatchRunner
from web.batches.line_run import LineRun
from web.model_lists import ModelLists
from web.replay.follower import Follower
from web.replay.run_export import RunExport
from web.reply.hub import Hub
from web.reply.mailbox import Mailbox
from web.request.capacity.drain_rate import DrainRate
from web.single_flight_cache import SingleFlightCache
from workers.alerts.watch import AlertWatch
from workers.credentials.access_token import AccessToken
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.credentials.leases import Leases
from workers.credentials.token_breaker import TokenBreaker
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_store import TokenStore
from workers.jobs.orphan_recovery import OrphanRecovery
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.process.front_monitor import FrontMonitor
from workers.process.membership import Membership
from workers.process.worker_process import WorkerProcess
from workers.process.worker_set import WorkerSet
from workers.process.worker_starter import WorkerStarter
from workers.refresher.client import Connection
from workers.refresher.server import RefresherServer
from workers.reply.outbox import Outbox
from workers.reply.stream_registry import StreamRegistry
from workers.response.tail_buffer import TailBuffer
from workers.response.token_meter import TokenMeter
from workers.sign_in.runner import SignInRunner
from workers.upstream.client import UpstreamConnection
from workers.worker.rq_worker import FarmWorker

# The front


def share_url_builders(patch: pytest.MonkeyPatch) -> None:
    """Compiles the functions that build the URLs of a rule once, not for each app: they depend on the rule alone."""
    compile_builder, builders = Rule._compile_builder, {}

    def find_builder(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        key = (rule.rule, repr(rule._trace), repr(rule.defaults), append_unknown)
        if key not in builders:
            builders[key] = compile_builder(rule, append_unknown)
        return builders[key]

    patch.setattr(Rule, "_compile_builder", find_builder)


def spawn_listener(hub: Hub) -> gevent.Greenlet:
    return gevent.spawn(hub._listen)


def start_listening(hub: Hub) -> gevent.Greenlet:
    """Starts the hub's subscription and waits until it stands."""
    listener = spawn_listener(hub)
    assert hub._subscribed.wait(30)
    return listener


def mark_subscribed(hub: Hub) -> None:
    hub._subscribed.set()


def spawn_gap_checks(hub: Hub) -> gevent.Greenlet:
    return gevent.spawn(hub._run_gap_checks)


def spawn_sweep(hub: Hub) -> gevent.Greenlet:
    return gevent.spawn(hub._run_sweeps)


def cancel_abandoned(hub: Hub) -> None:
    hub._cancel_abandoned()


def kill_fetches(model_lists: ModelLists) -> None:
    """Ends the fetches of a front that is closed: each would store its error once its 30 seconds are over."""
    model_lists._fetches.kill()


def open_mailboxes(hub: Hub) -> list[Mailbox]:
    return list(hub._mailboxes.values())


def buffered_bytes(mailbox: Mailbox) -> int:
    return mailbox._buffered


def count_cached(cache: SingleFlightCache[Any, Any]) -> int:
    return len(cache._cached)


def set_drain_rate(drain: DrainRate, pool: str, rate: float) -> None:
    drain._rates[pool] = rate


class RacingAdminTokens(AdminTokens):
    """Calls `before_revoking` once it has read the tokens."""

    def __init__(self, redis: Redis, before_revoking: Callable[[], object]) -> None:
        super().__init__(redis)
        self._before_revoking = before_revoking

    def _read_all(self) -> dict[bytes, AdminToken]:
        records = super()._read_all()
        self._before_revoking()
        return records


# Batches


def list_batch_lines(runner: BatchRunner) -> list[LineRun]:
    """The lines that run."""
    return [line for run in runner._runs.values() for line in run.lines.list_runs()]


def count_batch_lines(runner: BatchRunner) -> int:
    return len(list_batch_lines(runner))


def kill_batch_lines(runner: BatchRunner) -> None:
    for run in list(runner._runs.values()):
        run.lines.kill()


def stop_batch_runs(runner: BatchRunner) -> None:
    """Gives up the leases, which the runner may take again."""
    for run in list(runner._runs.values()):
        run.stop()


# Workers


def add_workers(worker_set: WorkerSet, workers: Mapping[str, Any]) -> None:
    worker_set._workers.update(workers)


def stop_surplus(worker_set: WorkerSet, group: str) -> None:
    worker_set._stop_surplus(group)


def look_for_retries(worker_set: WorkerSet) -> None:
    worker_set._look_for_retries()


def current_token(token: AccessToken) -> str:
    return token._token


def leased_id(token: AccessToken) -> str:
    """The credential of the token."""
    return token._lease.credential_id


def set_token_url(endpoint: TokenEndpoint, url: str) -> None:
    endpoint._pool = replace(endpoint._pool, token_url=url)


def shut_down(connection: Connection) -> None:
    """As the kernel closes the connections of a killed worker process."""
    connection._end.shutdown(socket.SHUT_RDWR)


def refresher_connections(server: RefresherServer) -> list[socket.socket]:
    return list(server._ends)


def make_token_probe_due(breaker: TokenBreaker) -> None:
    breaker._probe_at = 0.0


def make_probe_due(breaker: CircuitBreaker) -> None:
    breaker._probe_at = 0.0


def known_owners(recovery: OrphanRecovery) -> Mapping[str, Any]:
    return recovery._owners


def open_streams(registry: StreamRegistry) -> Mapping[str, Any]:
    return registry._streams


def ended_channels(registry: StreamRegistry) -> list[str]:
    return list(registry._ended)


def ended_bytes(registry: StreamRegistry) -> int:
    return registry._ended_bytes


def backlog_bytes(outbox: Outbox) -> int:
    return outbox._backlog_bytes


def connection_counts(upstream: UpstreamConnection) -> tuple[int, int]:
    """Requests sent and connections opened so far."""
    return upstream._pool.num_requests, upstream._pool.num_connections


def upstream_socket(upstream: UpstreamConnection) -> Any:
    """The socket that is kept for the next request."""
    return upstream._pool.pool.queue[-1].sock


def retained_bytes(tail: TailBuffer) -> int:
    return sum(map(len, tail._parts))


def uncounted_bytes(meter: TokenMeter) -> int:
    return sum(map(len, meter._uncounted))


# Redis


def redis_socket(connection: Any) -> Any:
    """The socket of a connection of redis-py."""
    return connection._sock


def tls_context(connection: Any) -> Any:
    """The SSLContext of a connection of redis-py."""
    return connection._sock.context


def count_in_flight(pipeline: AutoPipeline) -> int:
    return len(pipeline.multiplexer._awaiting_reply)


class ContendedApiKeys(ApiKeys):
    """API keys; once, right after the first read, another process changes the key that was read."""

    def __init__(self, redis: Redis, change: Mapping[str, Any]) -> None:
        super().__init__(redis)
        self.change: Mapping[str, Any] | None = change

    def _get_with_digest(self, key_id: str) -> Any:
        location = super()._get_with_digest(key_id)
        if self.change is not None:
            change, self.change = self.change, None
            ApiKeys(self._redis).update(key_id, dict(change))
        return location


def wrap_creation(owner: Files | Batches, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts something around the script that creates files, or batches."""
    if isinstance(owner, Files):
        owner._add = wrap(owner._add)  # type: ignore[assignment]
    else:
        owner._create = wrap(owner._create)  # type: ignore[assignment]


def release_held_at(queue: RelayQueue, key_id: str, request_id: str, now: float) -> float:
    """As `RelayQueue.release_held`, at a simulated time."""
    return float(queue._release_held(keys=[], args=[key_id, request_id, "", Job.key_for(""), now]))


def purge_front(redis: Redis, front: str) -> None:
    """Cancels the requests of a front that has died."""
    FrontMonitor(redis, lambda: ["default"], Counters(), lambda _: None)._cancel_requests(front)


def write_record(farm: Farm) -> None:
    farm._write_record()


def claim_missing(worker_set: WorkerSet, group: str) -> None:
    worker_set._claim_missing(group)


def build_starter(process: WorkerProcess, run: Callable[[FarmWorker], None]) -> WorkerStarter:
    """A starter of the process's workers that has `run` run them."""
    return WorkerStarter(process._services, process._leases, process._queues, process._workers._find_own_limits, run)


def membership(process: WorkerProcess) -> Membership:
    return process._membership


def bookkeeping(process: WorkerProcess, pool: str) -> Bookkeeping:
    return process._queues[pool].bookkeeping


def leases(process: WorkerProcess) -> Leases:
    return process._leases


def token_store(process: WorkerProcess) -> TokenStore:
    return process._services.refreshes.store


def join_polls(runner: SignInRunner) -> None:
    """Waits until nothing polls for a sign-in any more, so that nothing holds a connection."""
    gevent.joinall(list(runner._polls.values()))


# Alerts


def has_messengers(watch: AlertWatch) -> bool:
    """Whether a message is on its way."""
    return any(not delivery.dead for delivery in watch._messengers._deliveries.values())


def update_alerts(watch: AlertWatch) -> None:
    """Raises and ends alerts, whoever has the lease."""
    watch._update()


# Shared answers


def ask_for_turn(follower: Follower) -> None:
    """Lets a request that waits for its key's limit ask again at once."""
    if follower._turn:
        follower._turn._ask_at = 0.0
        follower._turn.wake()


def hold_exports(monkeypatch: pytest.MonkeyPatch, released: Event) -> None:
    """Lets exported frames wait for an event before they are stored."""
    store = RunExport._store

    def store_late(export: RunExport, entry: bytes) -> None:
        released.wait()
        store(export, entry)

    monkeypatch.setattr(RunExport, "_store", store_late)
