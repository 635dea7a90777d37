"""Loads the settings from the environment and `farm.toml`; the environment takes precedence."""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

from shared.errors import SettingsError
from shared.network.ip_addresses import parse_address
from shared.settings.kind_checks import check_kinds
from shared.settings.parsers import InvalidSecret
from shared.settings.schema import POOL_TIMEOUTS, PoolSettings, Settings, setting_fields

#: Path of the settings file, `farm.toml` in the working directory by default.
CONFIG_VARIABLE = "FARM_CONFIG"
#: Variables that Kubernetes sets in every container for a Service called `farm` or `farm-…`, and Docker for a link.
SERVICE_LINK = re.compile(
    r"FARM_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
#: Variables of docker-compose.yaml that are no settings, but reach the containers from `.env` as all others do.
COMPOSE_VARIABLES = ("FARM_PUBLISH",)
SERVICE_LINK_PORT, SERVICE_LINK_URL = re.compile(r"FARM_(\w+_)?PORT"), re.compile(r"(tcp|udp|sctp)://")


def load_settings(environ: Mapping[str, str] = os.environ, file: Path | None = None) -> Settings:
    """Loads all settings; `file` overrides FARM_CONFIG.

    Raises SettingsError, whose message names the offending setting, for any unknown or invalid setting.
    """
    environ = {name: value for name, value in environ.items() if not is_service_link(name, value)}
    reject_unknown_variables(environ)
    path = file or find_settings_file(environ)
    table = read_toml(path)
    try:
        return build_settings(environ, table)
    except SettingsError as error:
        raise SettingsError(add_line_number(str(error), path)) from None


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable describes a Service or a linked container, and is no setting."""
    if SERVICE_LINK.fullmatch(name):
        return True
    return bool(SERVICE_LINK_PORT.fullmatch(name) and SERVICE_LINK_URL.match(value))


def find_settings_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Path of the settings file, which need not exist."""
    return Path(environ.get(CONFIG_VARIABLE) or "farm.toml")


def read_data_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Reads only the data dir, so that a running farm can be stopped even if other settings are invalid."""
    try:
        table = read_toml(find_settings_file(environ))
    except SettingsError:
        table = {}
    file_part = {name: value for name, value in table.items() if name == "data_dir"}
    env_part = {name: value for name, value in environ.items() if name == "FARM_DATA_DIR"}
    return str(parse_fields(Settings, env_part, file_part, "farm.toml").get("data_dir", Settings.data_dir))


def build_settings(environ: Mapping[str, str], table: dict[str, Any]) -> Settings:
    pool_tables = table.pop("pools", {})
    if not isinstance(pool_tables, dict) or not all(isinstance(t, dict) for t in pool_tables.values()):
        raise SettingsError("farm.toml: pools must be tables, [pools.NAME]")
    values = parse_fields(Settings, environ, table, "farm.toml")
    default = parse_fields(PoolSettings, environ, pool_tables.pop("default", {}), "farm.toml: pools.default")
    pools = parse_pools(pool_tables, default)
    values["https"] = choose_https(values)
    settings = Settings(**values, pools=tuple(PoolSettings(**pool) for pool in pools))
    check_timeouts(settings, values, pools)
    check_kinds(settings)
    return settings


def choose_https(values: Mapping[str, Any]) -> str:
    """The configured FARM_HTTPS; without one, `auto` if there is a FARM_DOMAIN. Raises SettingsError."""
    domain: tuple[str, ...] = values.get("domain", ())
    https = str(values.get("https", "auto" if domain else "off"))
    if https == "auto":
        if not domain:
            raise SettingsError("FARM_HTTPS is auto, and there is no FARM_DOMAIN to get a certificate for")
        if address := next((name for name in domain if parse_address(name)), None):
            raise SettingsError(f"FARM_DOMAIN: public certificates are for names, and {address} is an address")
    return https


def check_timeouts(settings: Settings, values: Mapping[str, Any], pools: list[dict[str, Any]]) -> None:
    """Raises SettingsError for a configured timeout that could never pass, because the total timeout passes before it.

    `values` and `pools` hold what is configured. Defaults above a short total timeout are no mistake.
    """
    for name in ("queue_timeout", *(timeout for timeout in POOL_TIMEOUTS if timeout != "total_timeout")):
        total = settings.max_total_timeout
        if name in values and values[name] > total:
            variable = setting_fields(Settings)[name].metadata["env"]
            raise SettingsError(f"{variable} ({values[name]:g} s) exceeds FARM_TOTAL_TIMEOUT ({total:g} s)")
        for pool, in_force in zip(pools, settings.pools, strict=True):
            total = settings.with_pool_timeouts(in_force).total_timeout
            if pool.get(name, 0) > total:
                where = f"farm.toml: pools.{in_force.name}: {name}"
                raise SettingsError(f"{where} ({pool[name]:g} s) exceeds the pool's total timeout ({total:g} s)")


def add_line_number(message: str, path: Path) -> str:
    """Adds the line number in the settings file, if the message names a setting in it."""
    match = re.match(r"farm\.toml: (?:pools\.([\w-]+): )?(?:unknown setting ')?(\w+)", message)
    if not match or not path.exists():
        return message
    section, wanted_section = "", f"pools.{match[1]}" if match[1] else ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if header := re.match(r"\s*\[([^\]]+)\]", line):
            section = header[1].replace('"', "").strip()
        elif section == wanted_section and re.match(rf"\s*\"?{re.escape(match[2])}\"?\s*=", line):
            return message.replace("farm.toml:", f"farm.toml, line {number}:", 1)
    return message


def parse_pools(tables: dict[str, dict[str, Any]], default: dict[str, Any]) -> list[dict[str, Any]]:
    """Fields of all pools, `default` first; it is left out if it is not configured but others are."""
    others = [
        {"name": validate_pool_name(name), **parse_fields(PoolSettings, {}, table, f"farm.toml: pools.{name}")}
        for name, table in tables.items()
    ]
    return others if others and not default else [default, *others]


def validate_pool_name(name: str) -> str:
    """Permits only letters, digits, `-` and `_`, because the name becomes part of Redis keys and worker names."""
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise SettingsError(f"farm.toml: pools.{name}: a pool's name may contain only letters, digits, - and _")
    return name


def read_toml(path: Path) -> dict[str, Any]:
    """Returns {} if the file does not exist. Raises SettingsError if it cannot be read or parsed."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def parse_fields(cls: type, environ: Mapping[str, str], table: dict[str, Any], where: str) -> dict[str, Any]:
    """Parses the given values, by field name; an empty variable counts as unset. `where` prefixes error messages."""
    values: dict[str, Any] = {}
    settings = setting_fields(cls)
    for key, value in table.items():
        name = key.lower().removeprefix("farm_")
        if name not in settings:
            raise SettingsError(f"{where}: unknown setting {key!r}{suggest_name(name, list(settings))}")
        values[name] = parse_value(settings[name], value, f"{where}: {key}")
    for name, setting_field in settings.items():
        variable = setting_field.metadata["env"]
        text = environ.get(variable, "") if variable else ""
        if text.strip():
            values[name] = parse_value(setting_field, text, variable)
    return values


def parse_value(setting_field: Field[Any], value: Any, where: str) -> Any:
    """Raises SettingsError, which never repeats the value of a secret."""
    try:
        return setting_field.metadata["parse"](value)
    except InvalidSecret as error:
        raise SettingsError(f"{where} {error}") from None
    except ValueError as error:
        raise SettingsError(f"{where} {'is not valid' if setting_field.metadata['secret'] else error}") from None


def env_names() -> list[str]:
    all_fields = [*setting_fields(Settings).values(), *setting_fields(PoolSettings).values()]
    return [CONFIG_VARIABLE, *(env for setting_field in all_fields if (env := setting_field.metadata["env"]))]


def reject_unknown_variables(environ: Mapping[str, str]) -> None:
    """Raises SettingsError for an unknown FARM_ variable, which is probably a typo."""
    known_names = env_names()
    for name in environ:
        if name.startswith("FARM_") and name not in (*known_names, *COMPOSE_VARIABLES):
            raise SettingsError(f"unknown setting {name}{suggest_name(name, known_names)}")


def suggest_name(name: str, known_names: list[str]) -> str:
    """Returns ' (did you mean X?)' for the closest match, '' if nothing is similar."""
    matches = difflib.get_close_matches(name, known_names, n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""
