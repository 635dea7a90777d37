import json

import pytest
from flask import Flask, Request, request

from shared.errors import ApiError
from web.request.body import RequestBody, read_body

app = Flask(__name__)


def asked(data: bytes, content_type: str = "application/json") -> RequestBody:
    with app.test_request_context("/", method="POST", data=data, content_type=content_type):
        found: Request = request
        return read_body(found)


def multipart(**fields: str) -> tuple[bytes, str]:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n'
    file += b"Content-Type: audio/mpeg\r\n\r\n\x00\xff\r\n"
    return file + b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


def test_model_and_stream_are_read_from_json():
    found = asked(b'{"model": "m", "stream": true, "other": [1]}')
    assert (found.model, found.stream) == ("m", True)


def test_json_is_taken_whatever_it_is_called():
    assert asked(b'{"model": "m"}', "text/plain").model == "m"


def test_model_is_read_from_a_form():
    found = asked(*multipart(model="whisper", stream="true"))
    assert (found.model, found.stream) == ("whisper", True)


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
    ],
)
def test_a_bad_body_is_a_400_that_says_why(data: bytes, code: str, param: str | None):
    with pytest.raises(ApiError) as caught:
        asked(data)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


def test_a_body_whose_model_is_not_mapped_passes_byte_for_byte():
    data = b'{ "model":"m" ,"x":1.10, "y":[ ] }'
    assert asked(data).with_model("m").data == data


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model": "m"}', b'{"model": "big"}'),
        (b' { "x":1.10, "model" :"m" , "y":[ ] }\n', b' { "x":1.10, "model" :"big" , "y":[ ] }\n'),
        (
            b'{"model":"m","n":1e999,"s":"\\ud83d","u":"\xc3\xbc"}',
            b'{"model":"big","n":1e999,"s":"\\ud83d","u":"\xc3\xbc"}',
        ),
        (b'{"model":"x","a":{"model":"m"},"model":"m"}', b'{"model":"big","a":{"model":"m"},"model":"big"}'),
    ],
)
def test_mapping_changes_the_models_bytes_and_no_other(before: bytes, after: bytes):
    assert asked(before).with_model("big").data == after


def test_mapping_in_a_form_changes_only_that_field():
    data, content_type = multipart(model="m", prompt="the model is m")
    changed = asked(data, content_type).with_model("whisper-large").data
    assert changed == data.replace(b'name="model"\r\n\r\nm\r\n', b'name="model"\r\n\r\nwhisper-large\r\n')


@pytest.mark.parametrize(
    ("given", "expected"),
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
def test_the_usage_of_a_stream_is_asked_for_and_nothing_else_changed(given: bytes, expected: bytes):
    found = asked(given)
    assert found.lacks_usage
    assert found.with_usage().data == expected


def test_other_encodings_are_asked_for_their_usage_too():
    found = asked('{"model": "m", "stream": true, "x": "\u00e9"}'.encode("utf-16"))
    assert json.loads(found.with_usage().data) == {
        "model": "m",
        "stream": True,
        "x": "\u00e9",
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    "given",
    [
        b'{"model": "m"}',
        b'{"model": "m", "stream": true, "stream_options": {"include_usage": true}}',
        b'{"model": "m", "stream": true, "stream_options": "odd"}',
    ],
)
def test_who_asks_for_the_usage_or_for_no_stream_is_left_alone(given: bytes):
    assert not asked(given).lacks_usage


def test_what_may_wait_is_flexible():
    assert asked(b'{"model": "m", "service_tier": "flex"}').is_flexible
    assert not asked(b'{"model": "m", "service_tier": "auto"}').is_flexible


def test_a_form_is_never_asked_for_its_usage():
    assert not asked(*multipart(model="m", stream="true")).lacks_usage
