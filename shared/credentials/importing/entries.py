"""Reads the secrets of credentials out of a text, in the forms in which people keep them. No I/O.

A form that is not known is no reason to store it as a token: it would get a worker, and be refused. What lies beside a
token, a password above all, is never part of an entry.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shared.credentials.importing.documents import Element, split_assignments, split_csv, split_json
from shared.credentials.importing.line_forms import parse_json_line, read_line, read_pair
from shared.credentials.importing.secret_choice import choose_secrets, find_problem
from shared.credentials.kinds import KIND_NAMES, encode_client


@dataclass(frozen=True, repr=False)
class Entry:
    """One credential in a text, or why there is none. It has no repr, because it contains a secret."""

    #: The line that it begins on, counted from 1.
    line: int
    #: '' when there is none.
    secret: str = ""
    #: Why there is no secret in it, '' when there is one and for a blank line.
    problem: str = ""

    @property
    def outcome(self) -> str:
        """`token`, `blank` or `invalid`."""
        return "token" if self.secret else "invalid" if self.problem else "blank"


def read_entries(lines: Sequence[str], kind: str = "refresh_token") -> Iterator[Entry]:
    """Yields an entry for each line, or for each element of a JSON document, CSV row or group of assignments."""
    for split in (split_json, split_csv, split_assignments):
        elements = split(lines, kind)
        if elements is not None:
            for element in elements:
                yield from read_element(element, kind)
            return
    for number, line in enumerate(lines, 1):
        yield from read_element(Element(number, line.strip().lstrip("\ufeff").strip()), kind)


def read_texts(texts: Sequence[str], kind: str = "refresh_token") -> Iterator[Entry]:
    """Yields the entries of texts that are given one by one; each has the number of its text, from 1."""
    for number, text in enumerate(texts, 1):
        entries = list(read_entries(text.splitlines(), kind)) or [Entry(number)]
        for entry in entries:
            yield Entry(number, entry.secret, entry.problem)


def read_element(element: Element, kind: str) -> Iterator[Entry]:
    if isinstance(element.value, str):
        yield from read_text(element.line, element.value, kind)
    elif found := choose_secrets(element.value, kind):
        for secret, problem in found:
            yield check(element.line, secret, problem, kind)
    else:
        yield Entry(element.line, problem=f"there is no {KIND_NAMES[kind]} in it")


def read_text(number: int, text: str, kind: str) -> Iterator[Entry]:
    """The entries of one line, or of a text in a JSON document. A comment is blank."""
    if not text or text.startswith("#"):
        yield Entry(number)
        return
    value: Any = parse_json_line(text)
    if isinstance(value, (dict, list)):
        parts = value if isinstance(value, list) and value else [value]
        for part in parts:
            yield from read_element(Element(number, part), kind)
    elif kind == "service_account":
        yield Entry(number, problem="a service account's key is JSON")
    elif kind == "client_credentials":
        client_id, client_secret = read_pair(text)
        secret = encode_client(client_id, client_secret) if client_id else ""
        yield check(number, secret, "" if secret else "it is no client id with its secret", kind)
    else:
        yield check(number, *read_line(text, kind), kind)


def check(number: int, secret: str, problem: str, kind: str) -> Entry:
    """An entry with a secret that can be sent, or with what is wrong with it."""
    problem = problem or find_problem(secret, kind)
    return Entry(number, "" if problem else secret, problem)
