"""Refresh tokens are found in the forms in which people keep them, and nothing else is stored as one."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.credentials.token_import import classify_lines


def find(text: str) -> list[str]:
    """The tokens in a text."""
    return [token for _, outcome, token in classify_lines(text.splitlines()) if outcome == "token"]


def count_invalid(text: str) -> int:
    return sum(outcome == "invalid" for _, outcome, _ in classify_lines(text.splitlines()))


UUID = "9e5f94bc-e8a4-4e73-b8be-63364c29d753"
TOKENS = {
    "rt_a": ["rt_a"],
    " rt_a \r\n\ufeffrt_b\n": ["rt_a", "rt_b"],
    "1//0g-x_Y.z+/=": ["1//0g-x_Y.z+/="],
    "M.C5_BAY.0.U.-Ct!v*x$$": ["M.C5_BAY.0.U.-Ct!v*x$$"],
    "# a note\nrt_a\n#rt_b": ["rt_a"],
    '["rt_a",\n "rt_b"]': ["rt_a", "rt_b"],
    '[\n  "rt_a",\n  "rt_b"\n]\n': ["rt_a", "rt_b"],
    '["rt_a", "rt_b"]': ["rt_a", "rt_b"],
    '{"refresh_token":"rt_a"}\n{"refresh_token":"rt_b"}': ["rt_a", "rt_b"],
    '{"refresh_token":"rt_a"},\n{"refreshToken":"rt_b"},': ["rt_a", "rt_b"],
    '[{"email":"u@x.com","refresh_token":"rt_a"},{"refresh-token":"rt_b"}]': ["rt_a", "rt_b"],
    '{\n "tokens": {\n  "access_token": "at",\n  "refresh_token": "rt_a"\n }\n}': ["rt_a"],
    '{"accounts": [{"token": "rt_a"}, {"token": "rt_b"}]}': ["rt_a", "rt_b"],
    '{"access_token":"at","token":"at","refresh_token":"rt_a"}': ["rt_a"],
    '"rt_a",\n"rt_b"': ["rt_a", "rt_b"],
    "'rt_a',\n`rt_b`;": ["rt_a", "rt_b"],
    "refresh_token=rt_a\nREFRESH_TOKEN='rt_b'\nexport REFRESH_TOKEN=\"rt_c==\"": ["rt_a", "rt_b", "rt_c=="],
    'refresh_token: rt_a\n"refresh_token": "rt_b",\n- token: rt_c\nRT = rt_d': ["rt_a", "rt_b", "rt_c", "rt_d"],
    "access_token=at&refresh_token=rt%2Fa&expires_in=1": ["rt/a"],
    "Bearer rt_a": ["rt_a"],
    "u@x.com----pw----rt_a": ["rt_a"],
    f"u@x.com----password----rt_a----{UUID}": ["rt_a"],
    f"u@x.com----password----{UUID}----rt_a": ["rt_a"],
    "u@x.com----rt_a": ["rt_a"],
    "u@x.com|pw|rt_a\nv@x.com:p:rt:b\nw@x.com,rt_c\nx@x.com;pw;rt_d\ny@x.com\tpw\trt_e": [
        *("rt_a", "rt:b", "rt_c", "rt_d", "rt_e")
    ],
    'email,refresh_token,note\nu@x.com,rt_a,one\nv@x.com,"rt_b","two, three"': ["rt_a", "rt_b"],
    "Email;Refresh Token\nu@x.com;rt_a\n;\n": ["rt_a"],
    "a----b": ["a----b"],
    "a=b": ["a=b"],
    "x:y": ["x:y"],
    "a&b=c": ["a&b=c"],
}


@pytest.mark.parametrize("text", TOKENS)
def test_tokens_are_found_in_every_form(text: str):
    assert find(text) == TOKENS[text]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[",
            "]",
            "{",
            "},",
            "[,",
            '"',
            '"rt_a',
            "{}",
            "[]",
            "[1, 2]",
            '{"access_token":"at"}',
            '{"refresh_token":7}',
        ),
        *("https://login.example/token", "u@x.com", "has space", "one\u2013three", "ключ", "Bearer a b", '"a b"'),
        *('{\n"refresh_token":', "[" * 3000, '{"refresh_token":"a\\nb"}', "u@x.com----", "[\n1\n]", "x" * 20_000),
    ],
)
def test_what_is_plainly_no_token_is_invalid(text: str):
    assert find(text) == []
    assert count_invalid(text) >= 1


def test_lines_are_numbered_as_in_the_file():
    text = "# note\nrt_a\n\n[\nrt_b"
    assert [(number, outcome) for number, outcome, _ in classify_lines(text.splitlines())] == [
        *((1, "blank"), (2, "token"), (3, "blank"), (4, "invalid"), (5, "token"))
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40) | st.dictionaries(st.text(), st.text(), max_size=2).map(json.dumps), max_size=4))
def test_whatever_is_imported_is_a_token_that_can_be_sent_or_not_stored(lines: list[str]):
    for _, outcome, token in classify_lines(lines):
        assert outcome in ("token", "blank", "invalid")
        assert outcome != "token" or (token.isascii() and token.isprintable() and " " not in token)
