"""Each kind of credential and form of token endpoint, from `./farm credentials import` to a streamed request."""

import base64
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from simulator.accounts import Accounts
from simulator.responses import translate
from simulator.token_endpoint.credential_kinds import list_secrets
from simulator.token_endpoint.token_rules import JWT_GRANT
from tests.environment import ROOT
from tests.system.clients.test_clients import run
from tests.system.farm import KEY
from tests.system.pools import OWN_ACCOUNTS, PoolFarm

ACCOUNTS = Accounts(16)
CLIENT = {"client_id": "farm", "client_secret": "a:b/c d"}
ENCODED_CLIENT = "farm:a%3Ab%2Fc+d"
TARGET = {"audience": "https://api.example", "resource": "urn:example"}
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: Streams a text from each model; prints what came, or status and code of the error.
STREAMS = """
import asyncio, json, sys
from openai import APIStatusError, AsyncOpenAI

async def main(url, key, *models):
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=100) as client:
        async def ask(model):
            messages = [{"role": "user", "content": f"Hello {model}"}]
            try:
                stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
            except APIStatusError as error:
                return [error.status_code, error.code]
        return dict(zip(models, await asyncio.gather(*map(ask, models))))

print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
"""


@dataclass(frozen=True)
class Form:
    """A pool with one credential, whose token endpoint accepts one form of request only."""

    kind: str = "refresh_token"
    #: Settings of the pool.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: What the token endpoint asks for, as the simulator's TokenRules.
    rules: Mapping[str, Any] = field(default_factory=dict)
    #: What the token request has beside the credential; values that start with `jwt:` are those of an assertion.
    presented: Mapping[str, str] = field(default_factory=dict)


REFRESH = {"grant_type": "refresh_token"}
FORMS = {
    "post": Form(
        settings={"token_auth": "body", **CLIENT}, rules={"auth": "body", **CLIENT}, presented=REFRESH | CLIENT
    ),
    "basic": Form(
        settings={"token_auth": "basic", **CLIENT},
        rules={"auth": "basic", **CLIENT},
        presented={"Basic": ENCODED_CLIENT, **REFRESH},
    ),
    "found": Form(
        settings=CLIENT, rules={"auth": "basic", "form": True, **CLIENT}, presented={"Basic": ENCODED_CLIENT, **REFRESH}
    ),
    "signed": Form(
        settings={"token_auth": "private_key_jwt", "client_id": "farm", "token_auth_kid": "k7", **CLIENT},
        rules={"auth": "private_key_jwt", "client_id": "farm"},
        presented={"client_id": "farm", "client_assertion_type": CLIENT_ASSERTION, "jwt": "farm k7", **REFRESH},
    ),
    "json": Form(
        settings={"token_request": "json", "token_parameters": TARGET},
        rules={"parameters": TARGET},
        presented={"json": "yes", **REFRESH, **TARGET},
    ),
    "bearer": Form(settings={"token_request": "bearer"}),
    "client": Form(
        "client_credentials",
        {"token_auth": "basic", "token_parameters": TARGET, "scope": "chat"},
        {"auth": "basic", "parameters": TARGET},
        {"grant_type": "client_credentials", "scope": "chat", **TARGET},
    ),
    "client_post": Form(
        "client_credentials", {"token_auth": "body"}, {"auth": "body"}, {"grant_type": "client_credentials"}
    ),
    "robot": Form(
        "service_account",
        {"token_parameters": TARGET, "scope": "chat"},
        {"parameters": TARGET},
        {"grant_type": JWT_GRANT, "scope": "chat", **TARGET},
    ),
    "key": Form("api_key"),
}
NUMBERS = {name: number for number, name in enumerate(FORMS, OWN_ACCOUNTS)}
#: API keys that the upstream doesn't know.
REFUSED_KEYS = list_secrets(Accounts(3, seed="another"), "api_key")
#: Pools whose credential is imported by the command, in a form of its kind that isn't what is stored.
BY_COMMAND = ("post", "client", "robot", "key")


def encode_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {json.dumps(text)}" for name, text in value.items()) + "}"
    return json.dumps(value)


def define_pool(pools: PoolFarm, name: str, settings: Mapping[str, Any]) -> str:
    upstream = pools.upstreams[0]
    values = {
        "upstream_url": upstream.url,
        "token_url": f"{upstream.token_url}/{name}",
        "models": [f"model-{name}"],
        **settings,
    }
    return f"[pools.{name}]\n" + "".join(f"{key} = {encode_toml(value)}\n" for key, value in values.items())


def create_key(path: Path) -> str:
    """Writes a private key, and returns the public one."""
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def find_secret(name: str, upstream_url: str = "") -> str:
    """The secret of a pool's only credential, as its owner has it."""
    return list_secrets(ACCOUNTS, FORMS[name].kind, upstream_url)[NUMBERS[name]]


def import_text(pools: PoolFarm, name: str, text: str) -> dict[str, Any]:
    return dict(pools.farm.admin("POST", "/credentials/import", json={"pool": name, "text": text}).json())


def import_credential(pools: PoolFarm, name: str) -> str:
    """The new credential's id."""
    secret, farm = find_secret(name), pools.farm
    if name not in BY_COMMAND:
        return str(import_text(pools, name, secret)["lines"][0]["id"])
    texts = {
        "post": f"somebody@example.org----a password----{secret}\n",
        "client": secret.replace(":", "----"),
        "key": f"api_key={secret}\n",
    }
    if name == "robot":
        file = pools.home / "robot.json"
        file.write_text(json.dumps(json.loads(secret), indent=2))
        report = farm.json("credentials", "import", "--pool", name, str(file))
    else:
        report = farm.json("credentials", "import", "--pool", name, "-", stdin=texts[name])
    (credential_id,) = report["ids"]
    return str(credential_id)


def read_jwt(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims; the simulator verifies the signature, the times and the audience."""
    header, claims, _ = token.split(".")
    return (json.loads(base64.urlsafe_b64decode(header + "==")), json.loads(base64.urlsafe_b64decode(claims + "==")))


def describe_token_request(request: Mapping[str, str]) -> dict[str, str]:
    """The fields of a token request, with what is in the header under the name of its scheme."""
    is_json = request["content-type"] == "application/json"
    fields = dict(json.loads(request["body"]) if is_json else parse_qsl(request["body"]))
    fields |= {"json": "yes"} if is_json else {}
    if request["authorization"]:
        scheme, _, value = request["authorization"].partition(" ")
        fields[scheme] = base64.b64decode(value).decode() if scheme == "Basic" else value
    if assertion := fields.pop("client_assertion", ""):
        header, claims = read_jwt(assertion)
        fields["jwt"] = f"{claims['iss']} {header['kid']}"
    if assertion := fields.pop("assertion", ""):
        header, claims = read_jwt(assertion)
        fields["jwt"] = f"{claims['iss']} {header['kid']} {claims['scope']}"
    return fields


def expect_token_request(name: str) -> dict[str, str]:
    form, secret, number = FORMS[name], find_secret(name), NUMBERS[name]
    if name == "bearer":
        return {"Bearer": secret}
    if form.kind == "refresh_token":
        return {**form.presented, "refresh_token": secret}
    if form.kind == "service_account":
        return {**form.presented, "jwt": f"robot-{number}@accounts.simulator key-{number} chat"}
    client_id, _, client_secret = secret.partition(":")
    own = {"client_id": client_id, "client_secret": client_secret}
    return {**form.presented, **({"Basic": secret} if form.rules["auth"] == "basic" else own)}


def stream(pools: PoolFarm, *names: str) -> dict[str, Any]:
    """What OpenAI's SDK got from the model of each pool."""
    models = [f"model-{name}" for name in names]
    printed = run(sys.executable, "-c", STREAMS, f"{pools.farm.url}/v1", KEY, *models, cwd=ROOT)
    return {model.removeprefix("model-"): reply for model, reply in json.loads(printed).items()}


def find_tokens(received: list[dict[str, str]], name: str) -> set[str]:
    """The tokens with which the upstream was asked for the pool's model."""
    model = f'"model-{name}"'
    return {
        request["authorization"].removeprefix("Bearer ")
        for request in received
        if request["path"].startswith("/v1/") and model in request["body"]
    }


@pytest.fixture
def ids(pools: PoolFarm) -> dict[str, str]:
    """Adds the pools by a reload, each with its credential; the credentials' ids by pool."""
    upstream = pools.upstreams[0]
    assert upstream.received() == []
    public = create_key(pools.home / "client-key.pem")
    tables = [pools.read()]
    for name, form in FORMS.items():
        signs = form.rules.get("auth") == "private_key_jwt"
        rules = {**form.rules, "client_key": public} if signs else form.rules
        upstream.token_rules(endpoint=name, **rules)
        key = {"token_auth_key": str(pools.home / "client-key.pem")} if signs else {}
        tables.append(define_pool(pools, name, {"credential_kind": form.kind, **form.settings, **key}))
    tables.append(define_pool(pools, "refused", {"credential_kind": "api_key"}))
    pools.write("\n".join(tables))
    result = pools.farm.command("reload")
    assert result.returncode == 0, result.stderr
    import_text(pools, "refused", "\n".join(REFUSED_KEYS))
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(FORMS, threads.map(lambda name: import_credential(pools, name), FORMS), strict=True))


def test_each_kind_and_form_serves_a_streamed_request(pools: PoolFarm, ids: dict[str, str]):
    upstream, farm = pools.upstreams[0], pools.farm
    names = (*FORMS, "refused")
    texts = {name: translate(f"Hello model-{name}") for name in FORMS}
    assert stream(pools, *names) == {**texts, "refused": [502, "upstream_auth_failed"]}
    received = upstream.received()
    for name, number in NUMBERS.items():
        (token,) = find_tokens(received, name)
        if name == "key":
            assert token == find_secret(name)
            continue
        assert token.startswith(f"sim-at-{number}-"), name
        asked = [request for request in received if request["path"] == f"/oauth/token/{name}"]
        assert describe_token_request(asked[-1]) == expect_token_request(name), name
    assert find_tokens(received, "refused") <= set(REFUSED_KEYS)

    for name in BY_COMMAND:
        shown = farm.json("credentials", "show", ids[name])
        assert (shown["pool"], shown["kind"], shown["state"]) == (name, FORMS[name].kind, "active")
    listed = {credential["id"]: credential for credential in farm.credentials()}
    assert {(listed[ids[name]]["kind"], listed[ids[name]]["state"]) for name in FORMS} == {
        (form.kind, "active") for form in FORMS.values()
    }
    assert "dead" not in {credential["state"] for credential in listed.values()}
    warning = "pool refused: its upstream refuses several of its API keys and accepts none"
    assert warning in farm.get("/readyz").json()["warnings"]

    exported = farm.json("credentials", "export")
    for name in FORMS:
        (own,) = (credential for credential in exported if credential["pool"] == name)
        report = import_text(pools, name, json.dumps([own], indent=2))
        assert (report["added"], report["duplicates"]) == (0, 1), name
    assert len(farm.credentials()) == len(exported)
