"""Splits a text into elements: those of JSON, the rows of CSV, groups of `name=value` lines. No I/O."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from shared.credentials.importing.line_forms import read_assignments, read_query
from shared.credentials.importing.secret_choice import OTHER_NAMES, SECRET_NAMES
from shared.credentials.kinds import normalise_name

#: What lies between two JSON values.
JSON_GAP = re.compile(r"[\s,]*")
CSV_SEPARATORS = ("----", "\t", ";", ",", "|")


class Element(NamedTuple):
    """A part of a text that is one credential, or several in one JSON value."""

    #: The line that it begins on, counted from 1.
    line: int
    value: Any


def split_json(lines: Sequence[str], kind: str) -> list[Element] | None:
    """The elements of JSON on several lines: an array's, or values one after another; None when it is none."""
    text = "\n".join(line.rstrip("\r\n") for line in lines).lstrip("\ufeff")
    if not text.lstrip().startswith(("[", "{")) or "\n" not in text.strip():
        return None
    try:
        return [part for element in scan_json(text, 0, len(text)) for part in expand_array(text, *element)]
    except (ValueError, RecursionError):
        return None


def scan_json(text: str, start: int, end: int) -> Iterator[tuple[int, int, Any]]:
    """Yields start, end and value of each JSON value there. Raises ValueError."""
    decoder = json.JSONDecoder()
    position = skip_gap(text, start)
    while position < end:
        value, stop = decoder.raw_decode(text, position)
        yield position, stop, value
        position = skip_gap(text, stop)


def skip_gap(text: str, position: int) -> int:
    match = JSON_GAP.match(text, position)
    return match.end() if match else position


def expand_array(text: str, start: int, end: int, value: Any) -> Iterator[Element]:
    """The elements of an array, each on its line; any other value itself, and an empty array, too."""
    elements = scan_json(text, start + 1, end - 1) if isinstance(value, list) and value else [(start, end, value)]
    for position, _, element in elements:
        yield Element(text.count("\n", 0, position) + 1, element)


def split_csv(lines: Sequence[str], kind: str) -> list[Element] | None:
    """The rows of a table with a header, as objects; None without a header and a line below it."""
    filled = [number for number, line in enumerate(lines) if line.strip()]
    if len(filled) < 2:
        return None
    first = filled[0]
    header = lines[first].lstrip("\ufeff").strip("\r\n")
    for separator in CSV_SEPARATORS:
        names = [normalise_name(name) for name in split_cells(header, separator)]
        if is_header(names, kind):
            numbered = enumerate(lines[first + 1 :], first + 2)
            return [Element(number, read_row(line, separator, names)) for number, line in numbered]
    return None


def split_cells(line: str, separator: str) -> list[str]:
    """The cells of a line, which may be quoted when the separator is one character."""
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return line.split(separator)


def is_header(names: list[str], kind: str) -> bool:
    """Whether these are names of columns; one alone must be that of the secret."""
    strong, weak = SECRET_NAMES[kind]
    if len(names) < 2:
        return any(name in (*strong, *weak) for name in names)
    return any(name in strong for name in names) or all(name in {*weak, *OTHER_NAMES, ""} for name in names)


def read_row(line: str, separator: str, names: list[str]) -> Any:
    """The cells by the names of their columns; '' for a blank row."""
    cells = split_cells(line.strip("\r\n"), separator)
    row = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if cell.strip() and name}
    return row or ""


def split_assignments(lines: Sequence[str], kind: str) -> list[Element] | None:
    """Groups of `name=value` lines with known names, as objects; None when there is any other line.

    A new group begins with a name that the present one has already, and after a blank line.
    """
    strong, weak = SECRET_NAMES[kind]
    groups: list[Element] = []
    roles: set[str] = set()
    for number, line in enumerate(lines, 1):
        text = line.strip().lstrip("\ufeff").strip()
        if not text or text.startswith("#"):
            roles = set()
            groups.append(Element(number, ""))
            continue
        fields = {} if read_query(text) else read_assignments(text)
        if len(fields) != 1:
            return None
        ((name, value),) = fields.items()
        role = "secret" if name in (*strong, *weak) else name
        if not roles or role in roles:
            groups.append(Element(number, {}))
            roles = set()
        roles.add(role)
        groups[-1].value[name] = value
    return groups
