"""Runs one worker process after the supervisor has forked it."""

import logging

from redis import Redis

from shared.credentials.importing.entries import read_entries
from shared.credentials.importing.report import ImportReport
from shared.credentials.store import Credentials
from shared.credentials.token_origin import origin_for_new_tokens
from shared.credentials.unsealing import Unsealer, load_unsealer
from shared.errors import FarmError, SettingsError
from shared.redis_connection.client import check_server, connect
from shared.redis_connection.data_version import stamp_data
from shared.redis_connection.retry import retry_forever, wait_for_redis
from shared.settings.advice import find_warnings
from shared.settings.file_checks import check_files, read_token_file
from shared.settings.kind_checks import read_token_auth_key
from shared.settings.schema import Settings
from workers.forked_process import run_forked
from workers.process.worker_process import WorkerProcess
from workers.process_slot import SpawnInfo
from workers.upstream.client import UpstreamMisconfigured
from workers.upstream.pool_network import build_route

log = logging.getLogger("farm.process")

#: Invalid lines of a token file that are logged.
MAX_LOGGED_LINES = 20


def check_settings(settings: Settings) -> None:
    """Checks what can be checked without Redis. Raises FarmError, which names the setting.

    It runs in the supervisor, so that bad settings end no process. It also reads the environment's proxies there: on
    macOS that crashes a forked process.
    """
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set (`./farm up` sets it for a private Redis)")
    for pool in settings.pools:
        if not pool.upstream_url or not (pool.token_url or pool.issuer or pool.credential_kind == "api_key"):
            raise FarmError(f"pool {pool.name}: FARM_UPSTREAM_URL and FARM_TOKEN_URL (or FARM_ISSUER) must both be set")
    check_files(settings)
    for pool in settings.pools:
        read_token_auth_key(pool)
    for pool in settings.pools:
        for url in filter(None, (pool.upstream_url, pool.token_url, pool.revocation_url, pool.issuer)):
            try:
                build_route(pool, url).open_pool(lambda: None)
            except UpstreamMisconfigured as error:
                raise SettingsError(f"pool {pool.name}: {url}: {error}") from None


def log_warnings(settings: Settings) -> None:
    """Logs the settings that are probably mistakes."""
    for warning in find_warnings(settings):
        log.warning("%s", warning, extra={"action": warning.action, "pool": warning.pool})


def import_token_files(settings: Settings, credentials: Credentials) -> None:
    """Imports the pools' refresh token files; tokens that the farm already has are skipped. Raises FarmError."""
    for pool in settings.pools:
        if pool.refresh_tokens_file:
            report = credentials.import_entries(
                pool.name,
                read_entries(read_token_file(pool), pool.credential_kind),
                token_origin=origin_for_new_tokens(pool),
                kind=pool.credential_kind,
            )
            log.info("%s", format_report(report), extra={"action": "tokens_imported", "pool": pool.name})
            for line in report.invalid[:MAX_LOGGED_LINES]:
                text = f"FARM_REFRESH_TOKENS_FILE, line {line.number}: {line.reason}"
                log.warning("%s", text, extra={"action": "token_invalid", "pool": pool.name})


def format_report(report: ImportReport) -> str:
    return ", ".join(f"{count} {name}" for name, count in report.to_counts().items())


def start_worker_process(settings: Settings, spawn_info: SpawnInfo) -> WorkerProcess:
    """Raises FarmError, also when Redis is away and no process has served yet."""
    if spawn_info.is_first:
        log_warnings(settings)
    redis = connect(settings.redis_url)
    if spawn_info.may_wait:
        wait_for_redis(redis)
    check_server(redis)
    unsealer = load_unsealer(settings)
    retry_forever(lambda: prepare_store(settings, spawn_info, unsealer, redis), "the worker process can't start yet")
    return WorkerProcess(settings, unsealer, spawn_info)


def serve(settings: Settings, spawn_info: SpawnInfo) -> int:
    """Runs one worker process; returns its exit code."""
    return run_forked(settings, lambda: start_worker_process(settings, spawn_info))


def prepare_store(settings: Settings, spawn_info: SpawnInfo, unsealer: Unsealer, redis: Redis) -> None:
    """Idempotent. Raises FarmError, RedisError, OSError."""
    stamp_data(redis)
    unsealer.ensure_sealing_key(redis)
    if spawn_info.is_first:
        unsealer.warn_of_short_key()
        import_token_files(settings, Credentials(redis))
