"""Compressed bodies are decoded within the limit; what can't be decoded is refused with what could be."""

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from flask import Flask, request
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import RequestEntityTooLarge

from shared.errors import ApiError
from web.request.body import read_body
from web.request.body_memory import BodyMemory, Reservation
from web.server.content_coding import DECODERS, bound_decoded_size, decode_body, parse_codings

app = Flask(__name__)
LIMIT = 1_000_000
BODY = b'{"model": "m", "text": "' + random.Random(1).randbytes(100_000).hex().encode() + b'"}'


def deflate_raw(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "gzip in two members": ("gzip", lambda data: gzip.compress(data[:70_000]) + gzip.compress(data[70_000:])),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("Deflate", deflate_raw),
    "both": ("deflate , identity, gzip", lambda data: gzip.compress(zlib.compress(data))),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_compressed_body_is_decoded(name: str):
    coding, encode = ENCODERS[name]
    assert decode_body(encode(BODY), parse_codings(coding), LIMIT) == BODY


@pytest.mark.parametrize("name", ENCODERS)
def test_truncated_and_broken_bodies_are_a_400(name: str):
    coding, encode = ENCODERS[name]
    packed = encode(BODY)
    for broken in (packed[:-10], packed[:1], b"{}" * 20, packed + b"garbage"):
        with pytest.raises(ApiError) as caught:
            decode_body(broken, parse_codings(coding), LIMIT)
        assert (caught.value.status, caught.value.code) == (400, "invalid_body")


@pytest.mark.parametrize("name", ENCODERS)
def test_bomb_is_a_413(name: str):
    coding, encode = ENCODERS[name]
    packed = encode(bytes(2 * LIMIT))
    with pytest.raises(RequestEntityTooLarge):
        decode_body(packed, parse_codings(coding), LIMIT)
    assert bound_decoded_size(len(packed), parse_codings(coding), LIMIT) == LIMIT


@given(st.binary(max_size=300), st.sampled_from(sorted(DECODERS)))
@settings(max_examples=50, deadline=None)
def test_nothing_but_the_callers_error_comes_of_any_bytes(data: bytes, coding: str):
    try:
        decode_body(data, [coding], LIMIT)
    except ApiError as error:
        assert error.status == 400


@pytest.mark.parametrize("header", ["compress", "gzip, sdch", "aws-chunked", "gzip, gzip, gzip, gzip"])
def test_unknown_coding_is_a_415_that_names_the_known_ones(header: str):
    with pytest.raises(ApiError) as caught:
        parse_codings(header)
    assert caught.value.status == 415
    assert {"gzip", "deflate"} <= set(caught.value.headers["accept-encoding"].split(", "))


@pytest.mark.parametrize("header", ["", "identity", " Identity ,"])
def test_no_coding_is_none(header: str):
    assert parse_codings(header) == []


def test_decoded_body_is_what_memory_is_held_for():
    memory = BodyMemory(50_000_000)
    headers = {"content-encoding": "gzip"}
    with app.test_request_context("/", method="POST", data=gzip.compress(BODY), headers=headers):
        request.max_content_length = LIMIT
        with Reservation(memory, "k1") as reservation:
            assert read_body(request, reservation).data == BODY
            assert memory.reserved == len(BODY)
    assert memory.reserved == 0
