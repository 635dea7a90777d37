"""Pages of lists, tables for export, versions of records: what several parts of the admin API share."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from flask import Response, g, request

from shared.errors import ApiError
from web.services import parts

T = TypeVar("T")
CSV, JSONL = "text/csv", "application/jsonl"


def page(found: Sequence[T], ids: Sequence[str], limit: int, cursor: str) -> tuple[list[T], str | None]:
    """The entries after the one whose id the cursor is, and the next cursor. Raises ApiError 404."""
    begin = 0
    if cursor:
        if cursor not in ids:
            raise ApiError(404, "not_found", "no entry has the cursor's id any more", param="cursor")
        begin = ids.index(cursor) + 1
    end = begin + limit
    return list(found[begin:end]), ids[end - 1] if end < len(found) else None


def stream_page(found: Iterator[T], limit: int) -> tuple[list[T], bool]:
    """As many entries as are wanted, and whether there are more."""
    taken = list(islice(found, limit + 1))
    return taken[:limit], len(taken) > limit


def exported(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], kind: str) -> Response:
    """Rows as CSV (RFC 4180) or as a JSON object a line, sent as they are read."""
    lines = csv_lines(rows, columns) if kind == "csv" else (json.dumps(row) + "\n" for row in rows)
    return Response(lines, content_type=f"{CSV}; charset=utf-8" if kind == "csv" else JSONL)


def csv_lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    """The heading and a line for each row. A text that a spreadsheet would run as a formula is kept a text."""
    kept = io.StringIO()
    writer = csv.writer(kept)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([plain(row.get(name, "")) for name in columns])
        if kept.tell() > 16_384:
            yield kept.getvalue()
            kept.seek(0)
            kept.truncate()
    yield kept.getvalue()


def plain(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula (OWASP, "CSV Injection")."""
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def tagged(answer: Response, version: object) -> Response:
    """An answer with the version of its record (RFC 9110, ETag)."""
    answer.set_etag(hashlib.sha256(str(version).encode()).hexdigest()[:20])
    return answer


def check_version(version: object) -> None:
    """Raises ApiError 412 when the caller has another version of the record in mind (RFC 9110, If-Match)."""
    expected = hashlib.sha256(str(version).encode()).hexdigest()[:20]
    if request.if_match and not request.if_match.contains(expected) and not request.if_match.star_tag:
        raise ApiError(412, "version_conflict", "the record has changed since it was read")


def note(action: str, target: str, details: Mapping[str, Any] | None = None) -> None:
    """A line in the audit log."""
    parts().audit.note(f"token {g.admin.id}", action, target, details)
