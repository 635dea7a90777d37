"""Refresh tokens are found in the forms in which people keep them, and nothing else is stored as one."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.credentials.importing.entries import read_entries
from shared.credentials.importing.secret_choice import is_token


def find(text: str, kind: str = "refresh_token") -> list[str]:
    """The tokens in a text."""
    return [entry.secret for entry in read_entries(text.splitlines(), kind) if entry.secret]


def count_invalid(text: str) -> int:
    return sum(entry.outcome == "invalid" for entry in read_entries(text.splitlines()))


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
    "u@x.com----rt_a.0123456789abc": ["rt_a.0123456789abc"],
    "u@x.com|pw|rt_a\nv@x.com:p:rt:b\nw@x.com,p,rt_c\nx@x.com;pw;rt_d\ny@x.com\tpw\trt_e": [
        *("rt_a", "rt:b", "rt_c", "rt_d", "rt_e")
    ],
    'email,refresh_token,note\nu@x.com,rt_a,one\nv@x.com,"rt_b","two, three"': ["rt_a", "rt_b"],
    "Email;Refresh Token\nu@x.com;rt_a\n;\n": ["rt_a"],
    "user----password----rt_a\nuser----pass|word----rt_b": ["rt_a", "rt_b"],
    "email----password----refresh_token\nu@x.com----pw----rt_a": ["rt_a"],
    "refresh_token\nrt_a\nrt_b": ["rt_a", "rt_b"],
    "email,password,token\nu@x.com,hunter2hunter2hunter2,rt_a": ["rt_a"],
    "email=u@x.com password=pw refresh_token=rt_a\nemail=v@x.com;password=pw;refresh_token=rt_b": ["rt_a", "rt_b"],
    "EMAIL=u@x.com\nPASSWORD=pw\nREFRESH_TOKEN=rt_a\n\nPASSWORD=pw\nREFRESH_TOKEN=rt_b": ["rt_a", "rt_b"],
    '{\n "refresh_token": "rt_a"\n}\n{\n "refresh_token": "rt_b"\n}': ["rt_a", "rt_b"],
    '[\n "u@x.com----pw----rt_a",\n {"token": "rt_b"},\n {"refresh_token": "rt_c"}\n]': ["rt_a", "rt_b", "rt_c"],
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


def test_a_password_is_never_taken_for_a_token_and_nobody_repeats_it():
    password = "hunter2-hunter2!"
    for text in (
        f"u@x.com:{password[:7]}",
        f"PASSWORD={password}",
        f"email,password\nu@x.com,{password}",
        f"email=u@x.com password={password}",
        f'[\n{{"email": "u@x.com", "password": "{password}"}}\n]',
    ):
        entries = list(read_entries(text.splitlines()))
        assert [entry.secret for entry in entries if entry.secret] == []
        assert any(entry.problem for entry in entries)
        assert not any(password[:7] in entry.problem for entry in entries)
        assert password[:7] not in repr(entries)


def test_elements_of_json_have_the_line_that_they_begin_on_and_a_reason_each():
    text = '[\n  {"refresh_token": "rt_a"},\n\n  {\n    "refresh_token": 7\n  },\n  "has space", 5\n]'
    assert [(entry.line, entry.secret, entry.problem) for entry in read_entries(text.splitlines())] == [
        (2, "rt_a", ""),
        (4, "", "there is no refresh token in it"),
        (7, "", "it has white space in it"),
        (7, "", "there is no refresh token in it"),
    ]


CLIENT = '{"client_id":"id-a","client_secret":"s:/ecret"}'


@pytest.mark.parametrize(
    "text",
    [
        *(
            "id-a:s:/ecret",
            "id-a----s:/ecret",
            "id-a\ts:/ecret",
            "id-a s:/ecret",
            "client_id=id-a client_secret=s:/ecret",
        ),
        *("client_id=id-a&client_secret=s%3A%2Fecret", "CLIENT_ID=id-a\nCLIENT_SECRET=s:/ecret"),
        *(CLIENT, f"[\n{CLIENT}\n]", "name,client_id,client_secret\nmine,id-a,s:/ecret"),
        *(
            '{"clientId": "id-a", "clientSecret": "s:/ecret"}',
            json.dumps({"clients": [{"installed": json.loads(CLIENT)}]}),
        ),
        json.dumps([{"id": "1f", "kind": "client_credentials", "refresh_token": CLIENT}], indent=1),
    ],
)
def test_clients_are_found_in_every_form(text: str):
    assert find(text, "client_credentials") == [CLIENT]


@pytest.mark.parametrize("text", ["id-a", '{"client_id": "id-a"}', '{"client_secret": "s"}', "client_id=id-a"])
def test_half_a_client_is_none(text: str):
    assert find(text, "client_credentials") == []


@pytest.mark.parametrize(
    "text", ["sk-1", "api_key=sk-1", '{"apiKey": "sk-1", "email": "u@x.com"}', "name,key\nmine,sk-1"]
)
def test_api_keys_are_found_in_every_form(text: str):
    assert find(text, "api_key") == ["sk-1"]


def build_key_file(**changes: Any) -> dict[str, Any]:
    """A service account's key file, of the form that Google gives out."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    fields = {"type": "service_account", "client_email": "robot@x.com", "client_id": "17", "private_key_id": "k1"}
    return {**fields, "private_key": pem, "token_uri": "https://login.example/token", **changes}


def test_service_accounts_are_found_in_files_arrays_and_lines():
    google = build_key_file()
    zitadel = {"type": "serviceaccount", "userId": "7", "keyId": "k2", "key": google["private_key"]}
    for text in (json.dumps([google, zitadel], indent=2), f"{json.dumps(google)}\n{json.dumps(zitadel)}"):
        first, second = (json.loads(secret) for secret in find(text, "service_account"))
        assert (first["issuer"], first["key_id"], first["audience"]) == (
            "robot@x.com",
            "k1",
            "https://login.example/token",
        )
        assert (second["issuer"], second["key_id"], "audience" in second) == ("7", "k2", False)
    (stored,) = find(json.dumps(google, indent=2), "service_account")
    assert find(stored, "service_account") == [stored], "an export can be imported"


def test_a_service_account_without_a_readable_key_is_invalid_with_a_reason():
    for changes in (
        {"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"},
        {"private_key": ""},
    ):
        (entry,) = read_entries([json.dumps(build_key_file(**changes))], "service_account")
        assert "private key" in entry.problem
        assert "AAAA" not in entry.problem
    (entry,) = read_entries(["rt_a"], "service_account")
    assert entry.problem


def test_lines_are_numbered_as_in_the_file():
    text = "# note\nrt_a\n\n[\nrt_b"
    assert [(entry.line, entry.outcome) for entry in read_entries(text.splitlines())] == [
        *((1, "blank"), (2, "token"), (3, "blank"), (4, "invalid"), (5, "token"))
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40) | st.dictionaries(st.text(), st.text(), max_size=2).map(json.dumps), max_size=4))
def test_whatever_is_imported_is_a_token_that_can_be_sent_or_not_stored(lines: list[str]):
    for entry in read_entries(lines):
        assert bool(entry.secret) + bool(entry.problem) == (entry.outcome != "blank")
        assert not entry.secret or is_token(entry.secret)
