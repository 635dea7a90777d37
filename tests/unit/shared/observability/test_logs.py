import json
import logging
import sys

from shared.observability.logs import JsonFormatter, TextFormatter


def record(**fields: str) -> logging.LogRecord:
    made = logging.LogRecord("farm.test", logging.INFO, __file__, 1, "it %s", ("happened",), None)
    made.__dict__.update(fields)
    return made


def test_text_is_a_line_with_its_fields():
    line = TextFormatter().format(record(action="tried", request_id="req_1"))
    assert line.endswith("info farm.test it happened action=tried request_id=req_1")
    assert "\n" not in line


def test_json_is_an_object_with_its_fields():
    line = json.loads(JsonFormatter().format(record(action="tried")))
    assert (line["message"], line["action"], line["level"]) == ("it happened", "tried", "info")


def test_a_traceback_is_kept_in_both_shapes():
    made = record()
    try:
        raise ValueError("oops")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: oops" in TextFormatter().format(made)
    assert "ValueError: oops" in json.loads(JsonFormatter().format(made))["traceback"]
