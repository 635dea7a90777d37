"""Streams rows as CSV or JSON Lines."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flask import Response

CSV_TYPE, JSONL_TYPE = "text/csv", "application/jsonl"


def export_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], export_format: str) -> Response:
    """Streams rows as CSV (RFC 4180) if `export_format` is `csv`, otherwise as one JSON object per line."""
    lines = iter_csv_lines(rows, columns) if export_format == "csv" else (json.dumps(row) + "\n" for row in rows)
    return Response(lines, content_type=f"{CSV_TYPE}; charset=utf-8" if export_format == "csv" else JSONL_TYPE)


def iter_csv_lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    """Yields the header and the rows in chunks of about 16 KiB, with formulas escaped."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([escape_formula(row.get(name, "")) for name in columns])
        if buffer.tell() > 16_384:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def escape_formula(value: Any) -> Any:
    """Prefixes text that a spreadsheet would run as a formula with an apostrophe (OWASP, "CSV Injection")."""
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
