"""What the front adds to ask for the usage can be taken out again, without changing anything else."""

import json

import pytest

from web.request.body import build_body
from workers.upstream.stream_options import drop_usage_request


def add_usage_request(body: bytes) -> bytes:
    return build_body(body, "application/json", json.loads(body)).with_usage().data


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","stream":true}',
        b'{ "model": "m", "messages": [{"content": "\\"stream_options\\": {}"}] }',
        b'{"model":"m","a":{"stream_options":{"include_usage":true}}}',
        '{"model":"m","prompt":"\u00e9\U0001f600"}'.encode(),
        b'{"model":"m","prompt":"\\ud83d"}',
    ],
)
def test_body_is_as_the_caller_sent_it(body: bytes):
    assert drop_usage_request(add_usage_request(body)) == body


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"model":"m","stream_options":null,"n":1}', b'{"model":"m","n":1}'),
        (b'{"stream_options": {},"model":"m"}', b'{"model":"m"}'),
        (b'{"model":"m","stream_options":{"include_usage":false}}', b'{"model":"m"}'),
        (
            b'{"model":"m","stream_options":{"include_obfuscation":false},"n":1}',
            b'{"model":"m","stream_options":{"include_obfuscation": false},"n":1}',
        ),
    ],
)
def test_other_options_of_the_caller_are_left(body: bytes, left: bytes):
    dropped = drop_usage_request(add_usage_request(body))
    assert json.loads(dropped) == json.loads(left)
    assert dropped == left
