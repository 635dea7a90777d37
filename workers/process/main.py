"""Runs one worker process after the supervisor has forked it."""

import logging
import resource
import sys
from pathlib import Path

import gevent
from redis import Redis

from shared import gc_tuning
from shared.credentials.store import Credentials
from shared.credentials.token_import import ImportReport
from shared.credentials.token_origin import origin_for_new_tokens
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError, StoreUnavailable
from shared.observability import logs
from shared.redis_connection.client import check_server, connect
from shared.settings.schema import Settings
from workers.process.worker_process import WorkerProcess
from workers.supervisor import EXIT_MISCONFIGURED, SpawnInfo

log = logging.getLogger("farm.process")


def raise_file_limit() -> None:
    """Raises the soft limit, usually 1,024 files: a thousand workers hold two connections each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require_upstreams(settings: Settings) -> None:
    """Raises FarmError when a pool has no upstream or no token endpoint."""
    for pool in settings.pools:
        if not pool.upstream_url or not pool.token_url:
            raise FarmError(f"pool {pool.name}: FARM_UPSTREAM_URL and FARM_TOKEN_URL must both be set")


def import_token_files(settings: Settings, credentials: Credentials) -> None:
    """Imports the pools' refresh token files; tokens that the farm already has are skipped. Raises FarmError."""
    for pool in settings.pools:
        if pool.refresh_tokens_file:
            try:
                lines = Path(pool.refresh_tokens_file).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise FarmError(f"FARM_REFRESH_TOKENS_FILE: {error}") from None
            report = credentials.import_lines(pool.name, lines, token_origin=origin_for_new_tokens(pool))
            log.info("%s", format_report(report), extra={"action": "tokens_imported", "pool": pool.name})


def format_report(report: ImportReport) -> str:
    return ", ".join(f"{count} {name}" for name, count in report.to_counts().items())


def wait_for_redis(redis: Redis) -> None:
    """Returns once Redis replies."""
    while True:
        try:
            check_server(redis)
            return
        except StoreUnavailable as error:
            log.warning("waiting for Redis: %s", error, extra={"action": "redis_lost"})
            gevent.sleep(0.5)


def serve(settings: Settings, spawn_info: SpawnInfo) -> int:
    """Runs one worker process; returns its exit code."""
    gevent.reinit()
    try:
        logs.configure_logging(settings.log_level, settings.log_format)
        raise_file_limit()
        require_upstreams(settings)
        redis = connect(settings.redis_url)
        # A process that replaces a dead one is configured correctly: Redis is only away.
        wait_for_redis(redis) if spawn_info.predecessor else check_server(redis)
        unsealer = load_unsealer(settings)
        unsealer.ensure_sealing_key(redis)
        if spawn_info.is_first:
            import_token_files(settings, Credentials(redis))
        process = WorkerProcess(settings, unsealer, spawn_info)
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    gc_tuning.tune_gc()
    process.run()
    return 0
