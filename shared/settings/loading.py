"""Reads the settings, once, from the environment and `farm.toml`; it opens nothing else.

The environment wins over the file. An unknown or bad setting is an error that names it.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

from shared.errors import SettingsError
from shared.settings.schema import PoolSettings, Settings, setting_fields

#: Names the file of settings, when it is not `farm.toml` in the working directory.
CONFIG_VARIABLE = "FARM_CONFIG"


def load_settings(environ: Mapping[str, str] = os.environ, file: Path | None = None) -> Settings:
    """Settings from the environment and `farm.toml` (in the working directory unless `file` or FARM_CONFIG names one).

    Raises SettingsError, which names the setting at fault.
    """
    reject_unknown_variables(environ)
    path = file or find_settings_file(environ)
    table = read_file(path)
    try:
        return build_settings(environ, table)
    except SettingsError as error:
        raise SettingsError(add_line_number(str(error), path)) from None


def find_settings_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the file of settings is, if there is one."""
    return Path(environ.get(CONFIG_VARIABLE) or "farm.toml")


def read_data_dir(environ: Mapping[str, str] = os.environ) -> str:
    """The data dir, whatever else is wrong with the settings: who has broken farm.toml can still stop the farm."""
    try:
        table = read_file(find_settings_file(environ))
    except SettingsError:
        table = {}
    known = {name: value for name, value in table.items() if name == "data_dir"}
    given = {name: value for name, value in environ.items() if name == "FARM_DATA_DIR"}
    return str(read_fields(Settings, given, known, "farm.toml").get("data_dir", Settings.data_dir))


def build_settings(environ: Mapping[str, str], table: dict[str, Any]) -> Settings:
    """Settings from the environment and a table."""
    pool_tables = table.pop("pools", {})
    if not isinstance(pool_tables, dict) or not all(isinstance(t, dict) for t in pool_tables.values()):
        raise SettingsError("farm.toml: pools must be tables, [pools.NAME]")
    values = read_fields(Settings, environ, table, "farm.toml")
    return Settings(**values, pools=read_pools(environ, pool_tables))


def add_line_number(message: str, path: Path) -> str:
    """The message with the line of the file that it speaks of, if it speaks of one."""
    found = re.match(r"farm\.toml: (?:pools\.([\w-]+): )?(?:unknown setting ')?(\w+)", message)
    if not found or not path.exists():
        return message
    section, wanted = "", f"pools.{found[1]}" if found[1] else ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if header := re.match(r"\s*\[([^\]]+)\]", line):
            section = header[1].replace('"', "").strip()
        elif section == wanted and re.match(rf"\s*\"?{re.escape(found[2])}\"?\s*=", line):
            return message.replace("farm.toml:", f"farm.toml, line {number}:", 1)
    return message


def read_pools(environ: Mapping[str, str], tables: dict[str, dict[str, Any]]) -> tuple[PoolSettings, ...]:
    """Every pool; the environment speaks of `default` only."""
    by_environment = read_fields(PoolSettings, environ, tables.pop("default", {}), "farm.toml: pools.default")
    others = [
        PoolSettings(name=validate_pool_name(name), **read_fields(PoolSettings, {}, table, f"farm.toml: pools.{name}"))
        for name, table in tables.items()
    ]
    if others and not by_environment:
        return tuple(others)
    return (PoolSettings(**by_environment), *others)


def validate_pool_name(name: str) -> str:
    """A pool's name goes into Redis keys and worker names, so it is kept to letters, digits, `-` and `_`."""
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise SettingsError(f"farm.toml: pools.{name}: a pool's name takes letters, digits, - and _")
    return name


def read_file(path: Path) -> dict[str, Any]:
    """The TOML file as a table; empty when there is none."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def read_fields(cls: type, environ: Mapping[str, str], table: dict[str, Any], where: str) -> dict[str, Any]:
    """The values that are given, by field name. An empty variable counts as not given."""
    found: dict[str, Any] = {}
    known = setting_fields(cls)
    for key, value in table.items():
        name = key.lower().removeprefix("farm_")
        if name not in known:
            raise SettingsError(f"{where}: unknown setting {key!r}{suggest(name, list(known))}")
        found[name] = read_value(known[name], value, f"{where}: {key}")
    for name, one in known.items():
        given = environ.get(one.metadata["env"], "") if one.metadata["env"] else ""
        if given.strip():
            found[name] = read_value(one, given, one.metadata["env"])
    return found


def read_value(one: Field[Any], value: Any, where: str) -> Any:
    """One value, checked; a secret is never repeated in the error."""
    try:
        return one.metadata["read"](value)
    except ValueError as error:
        raise SettingsError(f"{where} {'is not valid' if one.metadata['secret'] else error}") from None


def env_names() -> list[str]:
    """Every environment name the farm reads."""
    both = [*setting_fields(Settings).values(), *setting_fields(PoolSettings).values()]
    return [CONFIG_VARIABLE, *(one.metadata["env"] for one in both if one.metadata["env"])]


def reject_unknown_variables(environ: Mapping[str, str]) -> None:
    """A FARM_ variable that the farm does not know is a mistake in typing, so it stops the start."""
    known = env_names()
    for name in environ:
        if name.startswith("FARM_") and name not in known:
            raise SettingsError(f"unknown setting {name}{suggest(name, known)}")


def suggest(name: str, known: list[str]) -> str:
    """' (did you mean X?)' where one is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
