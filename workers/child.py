"""Entry of one worker process; it patches the standard library for gevent before anything else is imported."""

from gevent import monkey

monkey.patch_all()

# The imports below must come after the patch.
import logging
import resource
import sys
from pathlib import Path

from shared import logs
from shared.credentials import Credentials, ImportReport
from shared.errors import FarmError
from shared.opener import load_opener
from shared.redis_client import check, connect
from shared.settings import Settings, load
from workers.process import WorkerProcess
from workers.supervisor import IMPORT

#: Exit code for a mistake of configuration, which no restart mends.
MISCONFIGURED = 2
log = logging.getLogger("farm.process")


def raise_file_limit() -> None:
    """A thousand workers hold two connections each; the usual soft limit is 1,024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def need_upstreams(settings: Settings) -> None:
    """Without an upstream there is nothing to work for. Raises FarmError."""
    for pool in settings.pools:
        if not pool.upstream_url or not pool.token_url:
            raise FarmError(f"pool {pool.name}: FARM_UPSTREAM_URL and FARM_TOKEN_URL must both be set")


def import_files(settings: Settings, credentials: Credentials) -> None:
    """Imports the refresh tokens files of the pools; those that are known already are skipped."""
    for pool in settings.pools:
        if pool.refresh_tokens_file:
            try:
                lines = Path(pool.refresh_tokens_file).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise FarmError(f"FARM_REFRESH_TOKENS_FILE: {error}") from None
            report = credentials.import_lines(pool.name, lines)
            log.info("%s", report_line(report), extra={"action": "tokens_imported", "pool": pool.name})


def report_line(report: ImportReport) -> str:
    """An import in words."""
    return (
        f"{report.added} added, {report.duplicates} known already, {report.blanks} blank, {report.invalid} not tokens"
    )


def main() -> int:
    """Runs one worker process."""
    try:
        settings = load()
        logs.configure(settings.log_level, settings.log_format)
        raise_file_limit()
        need_upstreams(settings)
        redis = connect(settings.redis_url)
        check(redis)
        opener = load_opener(settings)
        opener.claim(redis)
        if IMPORT in sys.argv:
            import_files(settings, Credentials(redis))
        process = WorkerProcess(settings, opener)
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr)
        return MISCONFIGURED
    process.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
