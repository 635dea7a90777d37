"""`./farm config` and `./farm pools`: shows the settings, without secrets, and a template of them."""

import sys
from dataclasses import Field
from typing import Any

import click

from launcher.alert_check import find_alert_warnings
from launcher.commands.config_changes import set_, unset
from launcher.output import exit_on_error, json_option, print_json, print_line, print_table
from launcher.processes.https.advice import find_https_warnings
from launcher.processes.https.program import ensure_program
from launcher.processes.s3_client import ensure_s3_client
from launcher.selection import select_pool
from launcher.store import open_store, record_change
from shared.errors import FarmError
from shared.protocol.pool_pause import pause_pool, resume_pool
from shared.settings.advice import find_warnings
from shared.settings.file_checks import check_files
from shared.settings.loading import load_settings
from shared.settings.schema import PoolSettings, Settings, default_value, describe, setting_fields


@click.group()
def config() -> None:
    """Check and change the settings, or print a template of them."""


for command in (set_, unset):
    config.add_command(command)


def fetch_extras(settings: Settings) -> None:
    """Raises FarmError."""
    if settings.has_https:
        ensure_program(print_progress)
    ensure_s3_client(settings, print_progress)


def print_progress(text: str) -> None:
    print(f"farm: {text}", file=sys.stderr)


@config.command()
@click.option(
    "--fetch",
    is_flag=True,
    help="Also install what the settings ask for: Caddy for FARM_HTTPS, a client for S3 for FARM_FILES_URL.",
)
@json_option
@exit_on_error
def check(fetch: bool, as_json: bool) -> None:
    """Validate the environment and farm.toml; print the settings in force, or what is wrong with them."""
    settings = load_settings()
    check_files(settings)
    if fetch:
        fetch_extras(settings)
    warnings = (*find_warnings(settings), *find_https_warnings(settings), *find_alert_warnings(settings))
    for warning in warnings:
        print(f"farm: {warning}", file=sys.stderr)
    values = describe(settings)
    if as_json:
        print_json({**values, "pools": {pool.name: describe(pool) for pool in settings.pools}})
        return
    for name, value in values.items():
        print_line(f"{name} = {value}")
    for pool in settings.pools:
        for name, value in describe(pool).items():
            print_line(f"pools.{pool.name}.{name} = {value}")


@config.command()
@exit_on_error
def template() -> None:
    """Print an environment file with every setting, its meaning and its default (the content of .env.example)."""
    print_line(build_template().rstrip())


def build_template() -> str:
    """Returns an environment file with every setting commented out."""
    lines = ["# Settings of the farm. The environment wins over farm.toml; an unknown FARM_ name is an error."]
    lines += ["", "# the file of settings", "#FARM_CONFIG=farm.toml"]
    for setting in [*setting_fields(Settings).values(), *setting_fields(PoolSettings).values()]:
        if setting.metadata["env"]:
            lines += ["", f"# {setting.metadata['help']}", f"#{setting.metadata['env']}={format_default(setting)}"]
    return "\n".join(lines) + "\n"


def format_default(setting: Field[Any]) -> str:
    """Formats the default as an environment variable would hold it; '' for tables and for none."""
    value = default_value(setting)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None or isinstance(value, dict) else str(value)


@click.group()
def pools() -> None:
    """List, show, pause and resume pools."""


@pools.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """List the pools and their upstreams."""
    pools = load_settings().pools
    if as_json:
        print_json([{"name": pool.name, **describe(pool)} for pool in pools])
        return
    rows = [(p.name, p.upstream_url or "(the bundled simulator)", ", ".join(p.models) or "any") for p in pools]
    print_table(("NAME", "UPSTREAM", "MODELS"), rows)


@pools.command()
@click.argument("name")
@json_option
@exit_on_error
def show(name: str, as_json: bool) -> None:
    """Show the settings of a pool."""
    pool = {pool.name: pool for pool in load_settings().pools}.get(name)
    if pool is None:
        raise FarmError(f"no pool {name!r}")
    values = {"name": name, **describe(pool)}
    if as_json:
        print_json(values)
        return
    for key, value in values.items():
        print_line(f"{key}: {value}")


@pools.command()
@click.argument("name")
@exit_on_error
def pause(name: str) -> None:
    """Pause a pool: running requests end, new ones wait in its queue until `resume`, also over restarts."""
    settings, redis = open_store()
    pool = select_pool(settings, name)
    if pause_pool(redis, pool, "command line"):
        record_change(redis, "pool.pause", pool)
    print_line(f"{pool} paused: its requests wait; `./farm pools resume {pool}` goes on")


@pools.command()
@click.argument("name")
@exit_on_error
def resume(name: str) -> None:
    """Resume a paused pool; its workers go on within a second."""
    settings, redis = open_store()
    pool = select_pool(settings, name)
    if not resume_pool(redis, pool):
        print_line(f"{pool} is not paused")
        return
    record_change(redis, "pool.resume", pool)
    print_line(f"{pool} resumed")
