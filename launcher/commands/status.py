"""`./farm status`."""

import sys

import click

from launcher.commands.lifecycle import find_running
from launcher.output import exit_on_error, format_time, json_option, mask_password, print_json, print_line
from launcher.processes.data_dir import DataDir
from launcher.store import open_store
from shared.batches.batch_store import Batches
from shared.credentials.store import Credentials
from shared.files.store_health import read_health
from shared.observability.durability import read_durability
from shared.observability.pool_status import PoolStatus, read_pool_statuses
from shared.observability.refreshers import read_refreshers
from shared.settings.loading import load_settings


@click.command()
@json_option
@exit_on_error
def status(as_json: bool) -> None:
    """Show whether the farm is running, and the state of its pools; exit code 1 when it is not running."""
    settings = load_settings()
    record = find_running(DataDir(settings.data_dir))
    if record is None:
        print_json({"running": False}) if as_json else print_line("the farm is not running")
        sys.exit(1)
    redis = open_store()[1]
    statuses = read_pool_statuses(redis, settings.pool_names)
    durability, refreshers, file_store = read_durability(redis), read_refreshers(redis), read_health(redis)
    batches, redis_url = Batches(redis).count_by_status(), mask_password(record.redis_url)
    if as_json:
        facts = {"running": True, "pid": record.pid, "url": record.url, "redis_url": redis_url}
        facts |= {"started_at": record.started_at, "durability": durability.to_dict()}
        facts |= {"file_store": file_store.to_dict(), "batches": batches}
        print_json({**facts, "pools": [pool.to_dict() for pool in statuses]})
        return
    print_line(f"running since {format_time(record.started_at)}: {record.url} (process {record.pid})")
    print_line(
        "; ".join([f"redis: {redis_url}", f"durability {durability.state}", *durability.warnings, *refreshers.warnings])
    )
    for warning in file_store.warnings:
        print_line(warning)
    for pool in statuses:
        print_line(describe_pool(pool))
    if batches:
        print_line(f"batches: {', '.join(f'{count} {state}' for state, count in batches.items())}")
    outdated = sum(credential.export_outdated for credential in Credentials(redis).list(settings.pool_names))
    if outdated:
        print_line(f"{outdated} credentials have rotated since they were exported: their exported tokens are stale")


def describe_pool(pool: PoolStatus) -> str:
    counts = {"workers": pool.workers, "credentials": pool.credentials, "queued": pool.queue_depth}
    text = "; ".join(
        f"{name} {', '.join(f'{count} {state}' for state, count in by_state.items() if count) or 'none'}"
        for name, by_state in counts.items()
    )
    if held := sum(pool.held.values()):
        text += f"; {held} held by limits of their keys"
    if pool.private_credentials:
        text += f"; private credentials {pool.private_credentials}"
    warnings = "".join(f"; {warning}" for warning in pool.warnings)
    return f"pool {pool.name}: {text}; utilisation {pool.utilisation:.0%}{warnings}"
