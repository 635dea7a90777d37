"""Request bodies are read, and changed in place, without changing any other byte."""

import json

import pytest
from flask import Flask, Request, request

from shared.errors import ApiError
from web.request.body import MAX_MODEL_LENGTH, RequestBody, read_body
from web.request.body_memory import BodyMemory, Reservation

app = Flask(__name__)


def read(data: bytes, content_type: str = "application/json", path_model: str = "") -> RequestBody:
    with app.test_request_context("/", method="POST", data=data, content_type=content_type):
        current: Request = request
        current.max_content_length = 50_000_000
        return read_body(current, Reservation(BodyMemory(50_000_000), "k1"), path_model)


def multipart(**fields: str) -> tuple[bytes, str]:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n'
    file += b"Content-Type: audio/mpeg\r\n\r\n\x00\xff\r\n"
    return file + b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


def test_model_and_stream_are_read_from_json():
    body = read(b'{"model": "m", "stream": true, "other": [1]}')
    assert (body.model, body.stream) == ("m", True)


def test_json_is_read_under_any_content_type():
    assert read(b'{"model": "m"}', "text/plain").model == "m"


def test_model_and_stream_are_read_from_a_form():
    body = read(*multipart(model="whisper", stream="true"))
    assert (body.model, body.stream) == ("whisper", True)


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b"{}", "missing_required_parameter", "model"),
        (b'{"model": ""}', "missing_required_parameter", "model"),
        (b'{"model": null}', "missing_required_parameter", "model"),
        (b'{"model": 3}', "invalid_type", "model"),
        (b'{"model": "m", "stream": "yes"}', "invalid_type", "stream"),
        (b'{"model": "m", "stream_options": "odd"}', "invalid_type", "stream_options"),
        (b'{"model": "m", "stream_options": {"x": "' + 2000 * b"x" + b'"}}', "invalid_type", "stream_options"),
        (
            b'{"model": "m", "stream_options": {"x": ' + 800 * b"[" + 800 * b"]" + b"}}",
            "invalid_type",
            "stream_options",
        ),
        (b'{"model": "m", "mod\\u0065l": "other"}', "invalid_json", None),
        (b'{"stream": false, "model": "m", "stream": true}', "invalid_json", None),
        (b'{"model": "m", "x": [' + b",".join([b"[]"] * 600_000) + b"]}", "invalid_json", None),
    ],
)
def test_invalid_body_is_a_400_that_says_why(data: bytes, code: str, param: str | None):
    with pytest.raises(ApiError) as caught:
        read(data)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


def test_model_that_is_too_long_does_not_exist():
    longest = "m" * MAX_MODEL_LENGTH
    assert read(json.dumps({"model": longest}).encode()).model == longest
    for data, content_type in (
        (json.dumps({"model": longest + "m"}).encode(), "application/json"),
        multipart(model=longest + "m"),
    ):
        with pytest.raises(ApiError) as caught:
            read(data, content_type)
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_body_without_a_mapped_model_is_unchanged():
    data = b'{ "model":"m" ,"x":1.10, "y":[ ] }'
    assert read(data).with_model("m").content == data


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model": "m"}', b'{"model": "big"}'),
        (b' { "x":1.10, "model" :"m" , "y":[ ] }\n', b' { "x":1.10, "model" :"big" , "y":[ ] }\n'),
        (
            b'{"model":"m","n":1e999,"s":"\\ud83d","u":"\xc3\xbc"}',
            b'{"model":"big","n":1e999,"s":"\\ud83d","u":"\xc3\xbc"}',
        ),
        (b'{"a":{"model":"x","model":"m"},"mod\\u0065l":"m"}', b'{"a":{"model":"x","model":"m"},"mod\\u0065l":"big"}'),
    ],
)
def test_mapping_changes_only_the_bytes_of_the_model(before: bytes, after: bytes):
    assert read(before).with_model("big").content == after


def test_mapping_in_a_form_changes_only_the_model_field():
    data, content_type = multipart(model="m", prompt="the model is m")
    changed = read(data, content_type).with_model("whisper-large").content
    assert changed == data.replace(b'name="model"\r\n\r\nm\r\n', b'name="model"\r\n\r\nwhisper-large\r\n')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            b'{"model":"m","stream":true} \n',
            b'{"model":"m","stream":true, "stream_options": {"include_usage": true}}',
        ),
        (
            b'{"stream":true,"stream_options":null,"model":"m"}',
            b'{"stream":true,"stream_options":{"include_usage": true},"model":"m"}',
        ),
        (
            b'{"stream":true,"stream_options": {"x": 1},"model":"m"}',
            b'{"stream":true,"stream_options": {"x": 1, "include_usage": true},"model":"m"}',
        ),
        (
            b'{"stream":true,"model":"m","x":"\\"stream_options\\""}',
            b'{"stream":true,"model":"m","x":"\\"stream_options\\"", "stream_options": {"include_usage": true}}',
        ),
    ],
)
def test_usage_is_requested_of_a_stream_and_nothing_else_changed(before: bytes, after: bytes):
    body = read(before)
    assert body.lacks_usage
    assert body.with_usage().content == after


def test_usage_is_requested_in_other_encodings_too():
    body = read('{"model": "m", "stream": true, "x": "\u00e9"}'.encode("utf-16"))
    assert json.loads(body.with_usage().content) == {
        "model": "m",
        "stream": True,
        "x": "\u00e9",
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    "before",
    [
        b'{"model": "m"}',
        b'{"model": "m", "stream": true, "stream_options": {"include_usage": true}}',
    ],
)
def test_usage_is_not_added_to_other_requests(before: bytes):
    assert not read(before).lacks_usage


def test_service_tier_flex_is_flexible():
    assert read(b'{"model": "m", "service_tier": "flex"}').is_flexible
    assert not read(b'{"model": "m", "service_tier": "auto"}').is_flexible


def test_usage_is_never_requested_in_a_form():
    assert not read(*multipart(model="m", stream="true")).lacks_usage


@pytest.mark.parametrize(
    "data", [b'{"n": 1}', b'{"model": null, "n": 1}', b'{"model":"other","n":1}', b'{"model": 7, "n": 1}']
)
def test_model_of_the_path_is_that_of_a_json_body(data: bytes):
    body = read(data, path_model="m/x")
    assert (body.model, json.loads(body.data)) == ("m/x", {"model": "m/x", "n": 1})
    assert json.loads(body.with_model("mapped").content)["model"] == "mapped"


def test_body_that_names_the_model_of_the_path_passes_as_it_came():
    data = b'{ "model" : "m" }'
    assert read(data, path_model="m").data == data


@pytest.mark.parametrize("fields", [{}, {"model": "other"}])
def test_model_of_the_path_is_that_of_a_form(fields: dict[str, str]):
    data, content_type = multipart(language="en", **fields)
    body = read(data, content_type, "m")
    assert body.model == "m"
    again = read(body.with_model("mapped").content, content_type)
    assert again.model == "mapped"
    assert b'name="language"\r\n\r\nen\r\n' in again.content


def test_model_of_the_path_can_not_add_a_part_to_a_form():
    with pytest.raises(ApiError) as caught:
        read(*multipart(), "m\r\n--b\r\nx")
    assert caught.value.code == "invalid_form"
