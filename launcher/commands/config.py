"""`./farm config` and `./farm pools`: what the settings are, and a template of them; secrets are never printed."""

from dataclasses import Field
from typing import Any

import click

from launcher.output import json_option, print_json, print_line, print_table
from launcher.store import exit_on_error
from shared.errors import FarmError
from shared.settings.loading import load_settings
from shared.settings.schema import PoolSettings, Settings, default_value, describe, setting_fields


@click.group()
def config() -> None:
    """Settings: check, template."""


@config.command()
@json_option
@exit_on_error
def check(as_json: bool) -> None:
    """Read the environment and farm.toml; say what is in force, or what is wrong."""
    settings = load_settings()
    found = describe(settings)
    if as_json:
        print_json({**found, "pools": {pool.name: describe(pool) for pool in settings.pools}})
        return
    for name, value in found.items():
        print_line(f"{name} = {value}")
    for pool in settings.pools:
        for name, value in describe(pool).items():
            print_line(f"pools.{pool.name}.{name} = {value}")


@config.command()
@exit_on_error
def template() -> None:
    """A farm environment file with every setting, its meaning and its default (the content of .env.example)."""
    print_line(build_template().rstrip())


def build_template() -> str:
    """Every setting as a commented line of an environment file."""
    lines = ["# Settings of the farm. The environment wins over farm.toml; an unknown FARM_ name is an error."]
    lines += ["", "# the file of settings", "#FARM_CONFIG=farm.toml"]
    for one in [*setting_fields(Settings).values(), *setting_fields(PoolSettings).values()]:
        if one.metadata["env"]:
            lines += ["", f"# {one.metadata['help']}", f"#{one.metadata['env']}={format_default(one)}"]
    return "\n".join(lines) + "\n"


def format_default(one: Field[Any]) -> str:
    """A default as the environment would hold it."""
    value = default_value(one)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (dict, tuple)):
        return ""
    return str(value)


@click.group()
def pools() -> None:
    """Pools: list, show."""


@pools.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """Every pool and its upstream."""
    found = load_settings().pools
    if as_json:
        print_json([{"name": pool.name, **describe(pool)} for pool in found])
        return
    rows = [(p.name, p.upstream_url or "(the bundled simulator)", ", ".join(p.models) or "any") for p in found]
    print_table(("NAME", "UPSTREAM", "MODELS"), rows)


@pools.command()
@click.argument("name")
@json_option
@exit_on_error
def show(name: str, as_json: bool) -> None:
    """One pool's settings."""
    found = {pool.name: pool for pool in load_settings().pools}.get(name)
    if found is None:
        raise FarmError(f"no pool {name!r}")
    values = {"name": name, **describe(found)}
    if as_json:
        print_json(values)
        return
    for key, value in values.items():
        print_line(f"{key}: {value}")
