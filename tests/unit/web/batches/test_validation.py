"""Every fault of an input is reported with its code, parameter and line."""

import json
from typing import Any

import pytest

from shared.errors import ApiError
from web.batches import validation as module
from web.batches.validation import Validation

ENDPOINT = "/v1/chat/completions"
MAX_LINE = 1_000_000
GOOD = {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": {"model": "m", "messages": []}}


def validate(*lines: bytes, max_line: int = MAX_LINE) -> Validation:
    validation = Validation(ENDPOINT, check_model, max_line)
    for _ in validation.run([b"\n".join(lines)]):
        pass
    return validation


def check_model(model: str) -> None:
    if model == "unknown":
        raise ApiError(404, "model_not_found", "The model `unknown` does not exist.", param="model")


def change(**fields: Any) -> bytes:
    """A good line with other fields; None takes one out."""
    return json.dumps({name: value for name, value in {**GOOD, **fields}.items() if value is not None}).encode()


def change_body(**fields: Any) -> bytes:
    return change(body={**GOOD["body"], **fields})


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (change().decode().encode("utf-16-le"), "invalid_json_line", None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", None),
        (change()[:-1] + b', "url": "/v1/completions"}', "invalid_json_line", None),
        (change(custom_id=None), "missing_required_parameter", "custom_id"),
        (change(custom_id=7), "invalid_custom_id", "custom_id"),
        (change(custom_id=""), "invalid_custom_id", "custom_id"),
        (change(custom_id="x" * 513), "invalid_custom_id", "custom_id"),
        (change(), "duplicate_custom_id", "custom_id"),
        (change(method=None), "missing_required_parameter", "method"),
        (change(method="GET"), "invalid_method", "method"),
        (change(url=None), "missing_required_parameter", "url"),
        (change(url="/v1/embeddings"), "invalid_url", "url"),
        (change(body=None), "missing_required_parameter", "body"),
        (change(body="text"), "invalid_body", "body"),
        (change(body={}), "missing_required_parameter", "body.model"),
        (change_body(model=5), "invalid_type", "body.model"),
        (change_body(model="unknown", pad=1), "model_not_found", "body.model"),
        (change_body(stream="yes"), "invalid_type", "body.stream"),
        (change_body(stream=True), "invalid_stream", "body.stream"),
    ],
)
@pytest.mark.parametrize("padding", [0, 300_000], ids=["short", "long"])
def test_a_bad_line_is_reported(line: bytes, code: str, param: str | None, padding: int):
    if padding and line.endswith(b"}"):
        line = line[:-1] + (b', "pad": "' if b":" in line else b'"pad": "') + b"x" * padding + b'"}'
    if code != "duplicate_custom_id":
        line = line.replace(b'"custom_id": "a"', b'"custom_id": "b"')

    found = validate(change(), b"", line, max_line=MAX_LINE)

    assert [(error["code"], error["param"], error["line"]) for error in found.errors] == [(code, param, 3)]
    assert all(error["message"] for error in found.errors)


def test_a_good_input_is_counted():
    found = validate(change(), change(custom_id="b"), b"")
    assert (found.errors, found.total, found.model) == ([], 2, "m")


def test_a_byte_order_mark_is_taken():
    assert validate(b"\xef\xbb\xbf" + change()).errors == []


def test_an_empty_input_is_reported():
    assert [(error["code"], error["line"]) for error in validate(b" ", b"").errors] == [("empty_file", None)]


def test_too_long_a_line_is_reported():
    found = validate(change(), change(custom_id="b" * 200), max_line=150)
    assert [(error["code"], error["line"]) for error in found.errors] == [("line_too_long", 2)]


def test_too_many_lines_are_reported_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_LINES", 2)
    found = validate(b"{", change(), change(custom_id="b"), change(custom_id="c"))
    assert [(error["code"], error["line"]) for error in found.errors] == [("too_many_lines", None)]


def test_errors_are_bounded():
    assert len(validate(*[b"{"] * 500).errors) == module.MAX_ERRORS


def test_a_model_is_checked_once():
    checked = []
    validation = Validation(ENDPOINT, checked.append, MAX_LINE)
    for _ in validation.run([change() + b"\n" + change(custom_id="b")]):
        pass
    assert checked == ["m"]
