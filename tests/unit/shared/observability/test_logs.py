"""Log records are formatted as text or JSON, with their fields."""

import json
import logging
import sys

from shared.observability.logs import JsonFormatter, TextFormatter


def build_record(**fields: str) -> logging.LogRecord:
    record = logging.LogRecord("farm.test", logging.INFO, __file__, 1, "it %s", ("happened",), None)
    record.__dict__.update(fields)
    return record


def test_text_record_is_one_line_with_its_fields():
    line = TextFormatter().format(build_record(action="tried", request_id="req_1"))
    assert line.endswith("info farm.test it happened action=tried request_id=req_1")
    assert "\n" not in line


def test_json_record_is_an_object_with_its_fields():
    entry = json.loads(JsonFormatter().format(build_record(action="tried")))
    assert (entry["message"], entry["action"], entry["level"]) == ("it happened", "tried", "info")


def test_traceback_is_kept_in_both_formats():
    record = build_record()
    try:
        raise ValueError("oops")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: oops" in TextFormatter().format(record)
    assert "ValueError: oops" in json.loads(JsonFormatter().format(record))["traceback"]
