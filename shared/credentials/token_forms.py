"""Finds refresh tokens in the forms in which people keep them: lists, JSON, CSV, `refresh_token=…`, `mail----token`.

A form that is not known is no reason to store it as a token: it would get a worker, and be refused. No I/O.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs

#: Names of a refresh token, in lower case and without `_` and `-`.
TOKEN_NAMES = ("refreshtoken", "rt")
#: Names that mean a refresh token where the others don't occur.
WEAK_TOKEN_NAMES = ("token",)
#: Depth of JSON to which tokens are looked for.
MAX_DEPTH = 8
#: Separators of the fields behind an address of mail, the longest first.
SEPARATORS = ("----", "|", "\t", ";", ",", ":")
ASSIGNMENT = re.compile(r"""(?:export\s+|-\s+)?["']?([A-Za-z_-]+)["']?\s*[=:]\s*(\S.*)""")
MAIL_ADDRESS = re.compile(r"[^@\s:|;,]+@[^@\s:|;,]+\.[^@\s:|;,]+")
CLIENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: A JSON document on several lines begins so.
JSON_START = ("[", "{")


def find_tokens(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yields the number of each line, from 1, and its tokens; '' for a line without one.

    The tokens of a JSON document are numbered instead. What has no known form is yielded as it is, and may be no token.
    """
    if (document := parse_document(lines)) is not None:
        yield from enumerate(collect_tokens(document) or ["[]"], 1)
    elif (column := find_csv_column(lines)) is not None:
        yield from read_csv(lines, column)
    else:
        for number, line in enumerate(lines, 1):
            for token in read_line(line.strip().lstrip("\ufeff").strip()):
                yield number, token


def parse_document(lines: Sequence[str]) -> Any:
    """The lines as one JSON document, on several lines; None when they are none."""
    text = "\n".join(lines).lstrip("\ufeff").strip()
    return parse_json(text) if text.startswith(JSON_START) and "\n" in text else None


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def collect_tokens(value: Any) -> list[str]:
    """The refresh tokens in a JSON value, in their order: a text, a list of them, or objects that name them."""
    if isinstance(value, str):
        return [value.strip()]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [item.strip() for item in value]
    return named_tokens(value, TOKEN_NAMES) or named_tokens(value, WEAK_TOKEN_NAMES)


def named_tokens(value: Any, names: tuple[str, ...], depth: int = 0) -> list[str]:
    if depth > MAX_DEPTH:
        return []
    if isinstance(value, list):
        return [token for item in value for token in named_tokens(item, names, depth + 1)]
    if not isinstance(value, dict):
        return []
    tokens = []
    for name, member in value.items():
        if normalise_name(name) in names and isinstance(member, str):
            tokens.append(member.strip())
        else:
            tokens += named_tokens(member, names, depth + 1)
    return tokens


def normalise_name(name: str) -> str:
    return name.strip().strip("\"'").replace("_", "").replace("-", "").replace(" ", "").lower()


def find_csv_column(lines: Sequence[str]) -> tuple[int, str, int] | None:
    """The line of a CSV header, its separator and the column of the tokens; None when there is no header."""
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return None
    header = lines[first].lstrip("\ufeff")
    for separator in ("\t", ";", ","):
        names = [normalise_name(name) for name in header.split(separator)]
        if len(names) > 1 and (found := next((name for name in TOKEN_NAMES if name in names), "")):
            return first, separator, names.index(found)
    return None


def read_csv(lines: Sequence[str], header: tuple[int, str, int]) -> Iterator[tuple[int, str]]:
    first, separator, column = header
    for number, line in enumerate(lines[first + 1 :], first + 2):
        row = next(csv.reader([line.strip("\r\n")], delimiter=separator), [])
        yield number, row[column].strip() if column < len(row) else ""


def read_line(line: str) -> list[str]:
    """What a trimmed line has: tokens, [''] for nothing. A comment is nothing."""
    if not line or line.startswith("#"):
        return [""]
    bare = line.rstrip(",;").strip()
    if bare.startswith(("[", "{", '"')) and (value := parse_json(bare)) is not None:
        return collect_tokens(value) or [line]
    if bare and bare[0] in "'`\"" and bare[0] == bare[-1] and bare.count(bare[0]) == 2:
        return [bare[1:-1].strip() or line]
    for read in (read_query, read_assignment, read_fields):
        if token := read(line):
            return [token]
    return [line]


def read_query(line: str) -> str:
    """The token in `access_token=…&refresh_token=…`; '' for none."""
    if "&" not in line:
        return ""
    try:
        fields = parse_qs(line.rpartition("?")[2], max_num_fields=50)
    except ValueError:
        return ""
    return next((values[0].strip() for name, values in fields.items() if normalise_name(name) in TOKEN_NAMES), "")


def read_assignment(line: str) -> str:
    """The token in `refresh_token=…`, `REFRESH_TOKEN: "…"` or `Bearer …`; '' for none."""
    scheme, _, rest = line.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    match = ASSIGNMENT.fullmatch(line)
    if not match or normalise_name(match[1]) not in TOKEN_NAMES + WEAK_TOKEN_NAMES:
        return ""
    value = match[2].strip().rstrip(",;").strip()
    return value[1:-1] if len(value) > 2 and value[0] in "\"'" and value[0] == value[-1] else value


def read_fields(line: str) -> str:
    """The token behind a mail address and a password: the last field that is no client id; '' for another form."""
    for separator in SEPARATORS:
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) > 1 and MAIL_ADDRESS.fullmatch(fields[0]):
            if separator == ":":
                fields = line.split(":", 2)
            return next(field for field in reversed(fields) if field and not CLIENT_ID.fullmatch(field))
    return ""
