"""Log lines as text or JSON; every record names an `action`, and no record holds a token, a key or a prompt."""

import json
import logging
import sys
import time
from typing import Any

#: Fields of a record that are printed when given by `extra=`.
EXTRA_FIELDS = (
    "action",
    "request_id",
    "worker",
    "credential_id",
    "pool",
    "reason",
    "status",
    "attempt",
    "worker_process",
)
#: Libraries whose own lines would be noise below a warning.
QUIET_LOGGERS = ("urllib3", "rq", "rq.worker", "rq.job", "gunicorn.access", "redis")


class TextFormatter(logging.Formatter):
    """A line a fact: time, level, logger, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """logging: one record as text."""
        fields = " ".join(f"{name}={value}" for name, value in extra_fields(record).items())
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{at}.{int(record.msecs):03d}Z {record.levelname.lower()} {record.name} {record.getMessage()} {fields}"
        return append_traceback(self, record, line.rstrip())


class JsonFormatter(logging.Formatter):
    """A line a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """logging: one record as JSON."""
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
    """The fields that this record has."""
    return {name: value for name in EXTRA_FIELDS if (value := getattr(record, name, None)) is not None}


def append_traceback(formatter: logging.Formatter, record: logging.LogRecord, line: str) -> str:
    """The line and, when there is one, the traceback below it."""
    return f"{line}\n{formatter.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(level: str, shape: str) -> None:
    """Sends every log record to standard error in the chosen shape."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if shape == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
