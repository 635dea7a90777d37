"""Exports rows as CSV or JSON Lines."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flask import Response

CSV, JSONL = "text/csv", "application/jsonl"


def export_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], kind: str) -> Response:
    """Rows as CSV (RFC 4180) or as a JSON object a line, sent as they are read."""
    lines = iter_csv_lines(rows, columns) if kind == "csv" else (json.dumps(row) + "\n" for row in rows)
    return Response(lines, content_type=f"{CSV}; charset=utf-8" if kind == "csv" else JSONL)


def iter_csv_lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    """The heading and a line for each row. A text that a spreadsheet would run as a formula is kept a text."""
    kept = io.StringIO()
    writer = csv.writer(kept)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([escape_formula(row.get(name, "")) for name in columns])
        if kept.tell() > 16_384:
            yield kept.getvalue()
            kept.seek(0)
            kept.truncate()
    yield kept.getvalue()


def escape_formula(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula (OWASP, "CSV Injection")."""
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
