"""`./farm config` and `./farm pools`: what the settings are, and a template of them; secrets are never printed."""

from dataclasses import Field
from typing import Any

import click

from launcher.output import as_json, say, show_json, table
from launcher.store import one_line_errors
from shared.errors import FarmError
from shared.settings.loading import load_settings
from shared.settings.schema import PoolSettings, Settings, default_value, describe, setting_fields


@click.group()
def config() -> None:
    """Settings: check, template."""


@config.command()
@as_json
@one_line_errors
def check(as_json: bool) -> None:
    """Read the environment and farm.toml; say what is in force, or what is wrong."""
    settings = load_settings()
    found = describe(settings)
    if as_json:
        show_json({**found, "pools": {pool.name: describe(pool) for pool in settings.pools}})
        return
    for name, value in found.items():
        say(f"{name} = {value}")
    for pool in settings.pools:
        for name, value in describe(pool).items():
            say(f"pools.{pool.name}.{name} = {value}")


@config.command()
@one_line_errors
def template() -> None:
    """A farm environment file with every setting, its meaning and its default (the content of .env.example)."""
    say(template_text().rstrip())


def template_text() -> str:
    """Every setting as a commented line of an environment file."""
    lines = ["# Settings of the farm. The environment wins over farm.toml; an unknown FARM_ name is an error."]
    lines += ["", "# the file of settings", "#FARM_CONFIG=farm.toml"]
    for one in [*setting_fields(Settings).values(), *setting_fields(PoolSettings).values()]:
        if one.metadata["env"]:
            lines += ["", f"# {one.metadata['help']}", f"#{one.metadata['env']}={as_text(one)}"]
    return "\n".join(lines) + "\n"


def as_text(one: Field[Any]) -> str:
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
@as_json
@one_line_errors
def list_(as_json: bool) -> None:
    """Every pool and its upstream."""
    found = load_settings().pools
    if as_json:
        show_json([{"name": pool.name, **describe(pool)} for pool in found])
        return
    rows = [(p.name, p.upstream_url or "(the bundled simulator)", ", ".join(p.models) or "any") for p in found]
    table(("NAME", "UPSTREAM", "MODELS"), rows)


@pools.command()
@click.argument("name")
@as_json
@one_line_errors
def show(name: str, as_json: bool) -> None:
    """One pool's settings."""
    found = {pool.name: pool for pool in load_settings().pools}.get(name)
    if found is None:
        raise FarmError(f"no pool {name!r}")
    values = {"name": name, **describe(found)}
    if as_json:
        show_json(values)
        return
    for key, value in values.items():
        say(f"{key}: {value}")
