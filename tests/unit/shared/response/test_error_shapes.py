"""Errors of upstreams are read in the shapes of the field, and written in OpenAI's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.response.error_shapes import UpstreamError, has_error_mark, read_error, to_openai_error


def encode(payload: Any) -> bytes:
    return json.dumps(payload).encode()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            {"error": {"message": "no", "type": "server_error", "param": "x", "code": "c"}},
            UpstreamError("no", "server_error", "x", "c"),
        ),
        ({"error": "no"}, UpstreamError("no")),
        ({"error": "invalid_token", "error_description": "no"}, UpstreamError("no", code="invalid_token")),
        ({"error": True, "message": "no"}, UpstreamError("no")),
        ({"error": {"code": "429", "message": "no"}}, UpstreamError("no", code="429", status=429)),
        ({"error": {"code": 503.0, "msg": "no"}}, UpstreamError("no", status=503)),
        ({"error": {"error": {"message": "no"}}}, UpstreamError("no")),
        ({"object": "error", "message": "no", "code": 40303}, UpstreamError("no", code="40303")),
        (
            {"type": "error", "error": {"type": "rate_limit_error", "message": "no"}},
            UpstreamError("no", "rate_limit_error", status=429),
        ),
        (
            [{"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}],
            UpstreamError("no", code="403", status=403),
        ),
        (
            {"error": {"message": "no", "status": "RESOURCE_EXHAUSTED"}},
            UpstreamError("no", code="RESOURCE_EXHAUSTED", status=429),
        ),
        ({"code": 1302, "msg": "no"}, UpstreamError("no", code="1302")),
        ({"errcode": 40001, "errmsg": "no"}, UpstreamError("no", code="40001")),
        ({"error_code": 17, "error_msg": "no"}, UpstreamError("no", code="17")),
        ({"base_resp": {"status_code": 1004, "status_msg": "no"}}, UpstreamError("no", code="1004")),
        ({"success": False, "errors": [{"code": 10000, "message": "no"}]}, UpstreamError("no", code="10000")),
        ({"detail": "no"}, UpstreamError("no")),
        ({"detail": {"error": {"message": "no"}}}, UpstreamError("no")),
        (
            {"detail": [{"loc": ["body", "n"], "msg": "too big", "type": "x"}, {"msg": "odd"}]},
            UpstreamError("body.n: too big; odd"),
        ),
        (
            {"type": "https://e.org/limits", "title": "Slow", "status": 429, "detail": "no"},
            UpstreamError("no", code="429", status=429),
        ),
        ({"Response": {"Error": {"Code": "AuthFailure", "Message": "no"}}}, UpstreamError("no", code="AuthFailure")),
        ({"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "no"}}},
         UpstreamError("no", code="rate_limit_exceeded", status=429)),
        ({"message": "no"}, UpstreamError("no")),
        ({"choices": None}, UpstreamError()),
        (7, UpstreamError()),
    ],
)  # fmt: skip
def test_error_is_read_whatever_its_shape(payload: Any, expected: UpstreamError):
    assert read_error(encode(payload)) == expected
    assert read_error(b"event: error\r\ndata: " + encode(payload) + b"\r\n\r\n") == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"upstream  connect\nerror", "upstream connect error"),
        (b"<html><head><title>502 Bad\n Gateway</title>", "502 Bad Gateway"),
        (b"<html><body><center><h1>Too <b>many</b> &lt;3</h1>", "Too many <3"),
        (b"<html>", ""),
        (b"\x1f\x8b\x08\x00", ""),
        (b"", ""),
    ],
)
def test_text_and_titles_of_pages_are_messages(body: bytes, message: str):
    assert read_error(body).message == message


def test_error_in_openais_shape_passes_as_it_came():
    body = b'{"error": {"message": "no",  "extra": [1, 2.50]}}'
    assert to_openai_error(400, body) == body


def test_any_other_error_gets_openais_shape():
    error = json.loads(to_openai_error(429, encode({"code": 1302, "msg": "no"})))["error"]
    assert error == {"message": "no", "type": "upstream_error", "param": None, "code": "1302"}
    error = json.loads(to_openai_error(500, b""))["error"]
    assert (error["message"], error["code"]) == ("the upstream returned 500", "upstream_error")
    error = json.loads(to_openai_error(400, b'{"hint": "\\ud83d"}'))["error"]
    assert "hint" in error["message"]


@pytest.mark.parametrize("code", ["insufficient_quota", "Arrearage", "billing_not_active"])
def test_accounts_out_of_credit_are_told_by_the_code_and_never_by_the_text(code: str):
    assert read_error(encode({"error": {"message": "x", "code": code}})).is_unpaid
    assert read_error(encode({"error": {"message": "x", "type": code}})).is_unpaid
    assert not read_error(encode({"error": {"message": code, "code": "x"}})).is_unpaid


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "detail", "message", "code", "type", "status", "errors", "choices"]), inner
        )
    ),
    max_leaves=12,
)


@given(payload=JSON, wrapped=st.booleans())
def test_no_value_breaks_the_reader(payload: Any, wrapped: bool):
    body = encode(payload)
    error = json.loads(to_openai_error(500, b"data: " + body + b"\n\n" if wrapped else body))["error"]
    assert isinstance(error["message"], str)
    assert error["message"] or payload
    assert has_error_mark(payload) in (True, False)


@given(body=st.binary(max_size=200))
def test_no_bytes_break_the_reader(body: bytes):
    assert isinstance(json.loads(to_openai_error(500, body))["error"]["message"], str)
