"""One worker process from its birth to its end; the supervisor has loaded the modules and patched them for gevent."""

import logging
import resource
import sys
from pathlib import Path

import gevent
from redis import Redis

from shared import gc_tuning
from shared.credentials.store import Credentials
from shared.credentials.token_import import ImportReport
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError, StoreUnavailable
from shared.observability import logs
from shared.redis_connection.client import check_server, connect
from shared.settings.schema import Settings
from workers.process.worker_process import WorkerProcess
from workers.supervisor import EXIT_MISCONFIGURED, SpawnInfo

log = logging.getLogger("farm.process")


def raise_file_limit() -> None:
    """A thousand workers hold two connections each; the usual soft limit is 1,024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require_upstreams(settings: Settings) -> None:
    """Without an upstream there is nothing to work for. Raises FarmError."""
    for pool in settings.pools:
        if not pool.upstream_url or not pool.token_url:
            raise FarmError(f"pool {pool.name}: FARM_UPSTREAM_URL and FARM_TOKEN_URL must both be set")


def import_token_files(settings: Settings, credentials: Credentials) -> None:
    """Imports the refresh tokens files of the pools; those that are known already are skipped."""
    for pool in settings.pools:
        if pool.refresh_tokens_file:
            try:
                lines = Path(pool.refresh_tokens_file).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise FarmError(f"FARM_REFRESH_TOKENS_FILE: {error}") from None
            report = credentials.import_lines(pool.name, lines)
            log.info("%s", format_report(report), extra={"action": "tokens_imported", "pool": pool.name})


def format_report(report: ImportReport) -> str:
    """An import in words."""
    return ", ".join(f"{count} {name}" for name, count in report.to_counts().items())


def wait_for_redis(redis: Redis) -> None:
    """Returns when Redis answers; one who comes in the place of another is not misconfigured."""
    while True:
        try:
            check_server(redis)
            return
        except StoreUnavailable as error:
            log.warning("waiting: %s", error, extra={"action": "redis_lost"})
            gevent.sleep(0.5)


def serve(settings: Settings, birth: SpawnInfo) -> int:
    """Runs one worker process; returns its exit code."""
    gevent.reinit()
    try:
        logs.configure_logging(settings.log_level, settings.log_format)
        raise_file_limit()
        require_upstreams(settings)
        redis = connect(settings.redis_url)
        wait_for_redis(redis) if birth.predecessor else check_server(redis)
        opener = load_unsealer(settings)
        opener.claim(redis)
        if birth.is_first:
            import_token_files(settings, Credentials(redis))
        process = WorkerProcess(settings, opener, birth)
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    gc_tuning.tune_gc()
    process.run()
    return 0
