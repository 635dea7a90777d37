"""Edits `farm.toml` in place: one setting at a time, comments and layout kept."""

import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from shared.errors import SettingsError
from shared.settings.loading import load_settings, read_toml

HEADER = re.compile(r"\s*\[")


def format_toml(value: Any) -> str:
    """Formats a setting's value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(key, ensure_ascii=False)} = {format_toml(item)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(format_toml(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def change_settings_file(path: Path, pool: str, name: str, value: str | None) -> None:
    """Sets a setting to a value in TOML, or removes it when that is None; `pool` is '' for one of the whole farm.

    The file is replaced atomically, and only if the farm accepts all of it. Raises SettingsError or OSError.
    """
    path = path.resolve()
    table = read_toml(path)
    text = path.read_text() if path.exists() else ""
    new_text = edit_setting(text, pool, name, value)
    section = table.setdefault("pools", {}).setdefault(pool, {}) if pool else table
    keys = [key for key in section if normalise(key) == name]
    for key in keys:
        del section[key]
    if value is not None:
        section[keys[0] if keys else name] = tomllib.loads(f"value = {value}")["value"]
    if drop_empty(parse(new_text)) != drop_empty(table):
        raise SettingsError(f"{path}: {name} is written in a way that this command can't change; edit the file by hand")
    replace_settings_file(path, new_text)


def parse(text: str) -> dict[str, Any]:
    """Returns {} for text that isn't TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def drop_empty(table: dict[str, Any]) -> dict[str, Any]:
    """The table without empty pools: a pool's last setting may be removed, but not its header."""
    pools = {name: pool for name, pool in table.get("pools", {}).items() if pool}
    return {**{key: value for key, value in table.items() if key != "pools"}, **({"pools": pools} if pools else {})}


def replace_settings_file(path: Path, text: str) -> None:
    """Replaces the file by one that only its owner can read, unless its settings are refused."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        load_settings(file=draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def edit_setting(text: str, pool: str, name: str, value: str | None) -> str:
    """Returns the text with the setting's line replaced, added or, for None, removed."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    section = find_section(lines, pool)
    if section is None:
        header = ["\n"] * bool(lines) + [f"[pools.{pool}]\n"]
        return "".join([*lines, *header, f"{name} = {value}\n"] if value is not None else lines)
    start, end = section
    for number in range(start, end):
        key = re.match(r'\s*"?([\w-]+)"?\s*=\s*', lines[number])
        if key and normalise(key[1]) == name:
            length = statement_length(lines[number:end])
            comment = find_comment(lines[number]) if length == 1 else "\n"
            new_line = [f"{key[0]}{value}{comment}"] if value is not None else []
            return "".join([*lines[:number], *new_line, *lines[number + length :]])
    if value is None:
        return text
    used = [number for number in range(start, end) if lines[number].strip() and not lines[number].startswith("#")]
    position = used[-1] + 1 if used else start
    return "".join([*lines[:position], f"{name} = {value}\n", *lines[position:]])


def find_section(lines: list[str], pool: str) -> tuple[int, int] | None:
    """The range of lines of a pool's table, or of those before the first table for ''; None when there is none."""
    headers = [number for number, line in enumerate(lines) if HEADER.match(line)] + [len(lines)]
    if not pool:
        return 0, headers[0]
    wanted = re.compile(rf"\s*\[\s*pools\s*\.\s*\"?{re.escape(pool)}\"?\s*\]")
    for number, following in pairwise(headers):
        if wanted.match(lines[number]):
            return number + 1, following
    return None


def normalise(key: str) -> str:
    return key.lower().removeprefix("farm_")


def statement_length(lines: list[str]) -> int:
    """The number of lines of the statement that begins here: an array or a text may span several."""
    return next((length for length in range(1, len(lines)) if parse("".join(lines[:length]))), len(lines))


def find_comment(line: str) -> str:
    """The comment that follows a value, with the space before it; at least the end of the line."""
    value = parse(line)
    for match in re.finditer(r"\s*#", line):
        if parse(line[: match.start()]) == value:
            return line[match.start() :]
    return "\n"
