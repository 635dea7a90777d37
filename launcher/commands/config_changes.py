"""`./farm config set` and `unset`: writes settings to farm.toml, which every command reads."""

import os
import sys
from dataclasses import Field
from typing import Any

import click

from launcher.output import exit_on_error, print_line
from launcher.settings_file import change_settings_file, format_toml
from shared.errors import SettingsError
from shared.settings.loading import env_names, find_settings_file, parse_value, suggest_name, validate_pool_name
from shared.settings.schema import PoolSettings, Settings, setting_fields

pool_option = click.option("--pool", default="", help="The pool of a pool's setting; by default, `default`.")


@click.command(name="set")
@click.argument("name")
@click.argument("value", required=False)
@pool_option
@exit_on_error
def set_(name: str, value: str | None, pool: str) -> None:
    """Write a setting to farm.toml, which every command reads. NAME is its variable or its name in the file.

    Without VALUE it is read from standard input, or prompted for: a secret on the command line is seen by other users.
    `./farm restart` puts it in force.
    """
    pool, setting = find_setting(name, pool)
    is_secret = setting.metadata["secret"]
    if value is None:
        value = click.prompt(setting.name, hide_input=is_secret) if sys.stdin.isatty() else sys.stdin.read().strip()
    parsed = parse_value(setting, value, name)
    path = find_settings_file()
    change_settings_file(path, pool, setting.name, format_toml(parsed))
    print_line(f"{path}: {describe_place(pool, setting)} = {'set' if is_secret else format_toml(parsed)}")
    warn_of_override(setting, pool)


@click.command()
@click.argument("name")
@pool_option
@exit_on_error
def unset(name: str, pool: str) -> None:
    """Remove a setting from farm.toml."""
    pool, setting = find_setting(name, pool)
    path = find_settings_file()
    change_settings_file(path, pool, setting.name, None)
    print_line(f"{path}: {describe_place(pool, setting)} is unset")
    warn_of_override(setting, pool)


def find_setting(name: str, pool: str) -> tuple[str, Field[Any]]:
    """Returns a setting by its variable or name, with its pool ('' for a setting of the farm). Raises SettingsError."""
    wanted = name.lower()
    for cls in (PoolSettings,) if pool else (Settings, PoolSettings):
        for setting in setting_fields(cls).values():
            if wanted in (setting.name, f"farm_{setting.name}", setting.metadata["env"].lower()):
                return (validate_pool_name(pool or "default") if cls is PoolSettings else ""), setting
    known = [*setting_fields(Settings), *setting_fields(PoolSettings), *env_names()]
    raise SettingsError(f"unknown setting {name!r}{suggest_name(name, known)}")


def describe_place(pool: str, setting: Field[Any]) -> str:
    return f"pools.{pool}.{setting.name}" if pool else setting.name


def warn_of_override(setting: Field[Any], pool: str) -> None:
    """Says when the environment hides the file's setting."""
    variable = setting.metadata["env"]
    if variable and pool in ("", "default") and os.environ.get(variable):
        print(f"farm: {variable} is set in this shell and wins over the file here: unset it", file=sys.stderr)
