"""No body, path or query of a caller raises anything but the caller's error, and what is changed is nothing else."""

import json
from typing import Any

from flask import Flask, request
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ApiError
from web.access.passed_query import select_query
from web.request.body import FIELDS, RequestBody, read_body
from web.request.body_memory import BodyMemory, Reservation
from web.routes.relay import ENDPOINTS
from web.server.endpoint_paths import EndpointPaths

app = Flask(__name__)
EXAMPLES = settings(max_examples=30, deadline=None)
#: Text with lone surrogates, which JSON can express.
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
    max_leaves=6,
)
MEMBERS = st.lists(st.tuples(st.sampled_from(FIELDS) | TEXT, VALUES), max_size=5)
MODEL = st.tuples(st.just("model"), TEXT.filter(bool))
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
SPACE = st.sampled_from(["", " ", "\n\t"])
PATHS = EndpointPaths(ENDPOINTS)
SEGMENTS = st.sampled_from(
    ["v1", "openai", "chat", "completions", "chat/completions", "models", "deployments", "%2F", "x"]
)


def read(data: bytes, content_type: str = "application/json", path_model: str = "") -> RequestBody | None:
    """None for a body that is refused."""
    with app.test_request_context("/", method="POST", data=data, content_type=content_type):
        request.max_content_length = 1_000_000
        try:
            return read_body(request, Reservation(BodyMemory(50_000_000), "k1"), path_model)
        except ApiError as error:
            assert error.status in (400, 404)
            assert json.loads(error.body())
            return None


def encode(members: list[tuple[str, Any]], space: str) -> str:
    """A JSON object, in which a name may be there twice."""
    pairs = (f"{json.dumps(name)}{space}:{space}{json.dumps(value)}" for name, value in members)
    return f"{space}{{{space}{f'{space},'.join(pairs)}{space}}}{space}"


def describe(data: bytes) -> str:
    """A body's values, as text: NaN is not equal to itself."""
    return repr(json.loads(data))


@given(MEMBERS, MODEL, SPACE, ENCODINGS, st.sampled_from(["", "m", "a/b:c", "\u00e9\U0001f600"]))
@EXAMPLES
def test_body_is_refused_or_changed_in_one_member_only(
    members: list[tuple[str, Any]], model: tuple[str, str], space: str, encoding: str, path_model: str
):
    data = encode([*members, model], space).encode(encoding)
    body = read(data, path_model=path_model)
    if body is None:
        return
    if not path_model:
        assert body.data == data
    expected = {**json.loads(data), "model": path_model or model[1]}
    assert json.loads(body.data).keys() == expected.keys()
    assert describe(body.with_model("other").content) == repr(json.loads(data) | {"model": "other"})
    if body.lacks_usage:
        options = {**(body.stream_options or {}), "include_usage": True}
        changed = json.loads(body.with_usage().content)
        assert repr(changed.pop("stream_options")) == repr(options)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ue0 model1', max_size=60).map(str.encode))
@EXAMPLES
def test_any_bytes_are_read_or_refused(data: bytes):
    for content_type in ("application/json", "multipart/form-data; boundary=b", "\xe9;;=", ""):
        read(data, content_type)
        read(b"--b\r\n" + data + b"\r\n--b--", content_type, "m")


@given(st.lists(SEGMENTS, max_size=4), st.text(max_size=10))
@EXAMPLES
def test_path_that_has_been_understood_stays_as_it_is(segments: list[str], end: str):
    path, _ = PATHS.resolve("/" + "/".join(segments) + end)
    assert PATHS.resolve(path) == (path, "")


@given(st.binary(max_size=60))
@EXAMPLES
def test_selected_query_is_part_of_the_query(query: bytes):
    selected = select_query(query, ["a", "api-version"], ["secret"])
    assert set(selected.split("&")) <= {*query.decode("latin-1").split("&"), ""}
