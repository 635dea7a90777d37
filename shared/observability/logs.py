"""Formats log records as text or JSON.

The farm's own records have an `action` and never contain a token, key or prompt.
"""

import json
import logging
import sys
import time
from typing import Any

#: Fields that are printed if passed through `extra=`.
EXTRA_FIELDS = (
    "action",
    "request_id",
    "worker",
    "credential_id",
    "pool",
    "reason",
    "evidence",
    "status",
    "attempt",
    "worker_process",
)
#: Library loggers that are noise below level WARNING.
QUIET_LOGGERS = ("urllib3", "rq", "rq.worker", "rq.job", "gunicorn.access", "redis")


class TextFormatter(logging.Formatter):
    """One line per record: time, level, logger, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in extra_fields(record).items())
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{at}.{int(record.msecs):03d}Z {record.levelname.lower()} {record.name} {record.getMessage()} {fields}"
        return append_traceback(self, record, line.rstrip())


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extra_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name in EXTRA_FIELDS if (value := getattr(record, name, None)) is not None}


def append_traceback(formatter: logging.Formatter, record: logging.LogRecord, line: str) -> str:
    return f"{line}\n{formatter.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(level: str, log_format: str) -> None:
    """Sends all log records to stderr. `log_format` is `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level.upper())
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
