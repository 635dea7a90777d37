"""The admin API accepts, refuses and reports, and never returns a secret."""

import json
import re
import time
from collections import Counter
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from shared import clock, keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys, hash_secret
from shared.credentials.activity.activity import ActivityStore, Gains
from shared.credentials.activity.allowance import Allowance, Left
from shared.credentials.activity.attempt_counts import SlotCounts, find_bucket, slot_start
from shared.credentials.evidence import Evidence
from shared.credentials.store import Credentials
from shared.credentials.token_origin import TokenOrigins
from shared.credentials.unsealing import Unsealer
from shared.observability.refusals import record_refusals
from shared.observability.request_log import LogEntry, RequestLog
from shared.settings.schema import PoolSettings, Settings
from tests.redis_dump import dump_redis
from web.app import create_app
from workers.process.usage_rollup import UsageRollup

PREFIX = "/admin/api/v1"


class Api:
    """A client of the admin API, with an admin's and a viewer's token."""

    def __init__(self, redis: Redis, redis_url: str) -> None:
        self.redis = redis
        tokens = AdminTokens(redis)
        self.admin, _ = tokens.create("tests", "admin")
        self.viewer, _ = tokens.create("dashboard", "viewer")
        pools = (
            PoolSettings(client_secret="a client secret", token_url="https://token.example/oauth/token"),
            PoolSettings(name="other"),
        )
        self.client: FlaskClient = create_app(Settings(redis_url=redis_url, pools=pools)).test_client()

    def __call__(self, method: str, path: str, json: Any = None, token: str = "", **options: Any) -> TestResponse:
        headers = {"authorization": f"Bearer {token or self.admin}", **options.pop("headers", {})}
        return self.client.open(PREFIX + path, method=method, json=json, headers=headers, **options)


@pytest.fixture
def api(redis: Redis, redis_url: str, unsealer: Unsealer) -> Api:
    return Api(redis, redis_url)


def error(response: TestResponse) -> tuple[int, str, str | None]:
    """Status, code and param of an error response."""
    assert response.json is not None
    error = response.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


# Access


def test_requests_without_an_admin_token_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("web.admin.access.gate.DELAY_STEP_SECONDS", 0)
    for path in ("/keys", "/openapi.json", "/live", "/logs", "/nothing"):
        assert api.client.get(PREFIX + path).status_code == 401
        assert api("GET", path, token="admin-wrong").status_code == 401


def test_viewer_can_read_but_not_change(api: Api):
    assert api("GET", "/keys", token=api.viewer).status_code == 200
    for method, path in (
        ("POST", "/keys"),
        ("POST", "/keys/x/revoke"),
        ("PATCH", "/credentials/x"),
        ("POST", "/admin-tokens"),
    ):
        assert error(api(method, path, {}, token=api.viewer))[:2] == (403, "forbidden")
    assert ApiKeys(api.redis).list() == []


def test_api_key_is_not_an_admin_token(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("web.admin.access.gate.DELAY_STEP_SECONDS", 0)
    secret, _ = ApiKeys(api.redis).create("caller")
    assert api("GET", "/keys", token=secret).status_code == 401


def test_revoked_admin_token_ends_its_sessions(api: Api):
    token = api("POST", "/admin-tokens", {"name": "console", "role": "admin"}).json
    assert api.client.post("/admin/login", data={"token": token["token"]}).status_code == 302
    assert api.client.get(PREFIX + "/live").json["durability"] == {"state": "unknown", "since": None}
    assert api("DELETE", f"/admin-tokens/{token['id']}").status_code == 204
    assert api.client.get(PREFIX + "/live").status_code == 401
    listed = api("GET", "/admin-tokens").json["data"]
    assert token["id"] not in {record["id"] for record in listed}
    assert token["token"] not in repr(listed)


def test_last_admin_token_cannot_be_revoked(api: Api):
    records = api("GET", "/admin-tokens").json["data"]
    (admin_id,) = [record["id"] for record in records if record["role"] == "admin"]
    assert error(api("DELETE", f"/admin-tokens/{admin_id}"))[:2] == (409, "conflict")
    assert error(api("DELETE", "/admin-tokens/none"))[:2] == (404, "not_found")


# Validation


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/keys", {"rpm": "600"}, (400, "invalid_parameter", "rpm")),
        ("POST", "/keys", {"rpm": -1}, (400, "invalid_parameter", "rpm")),
        ("POST", "/keys", {"rmp": 1}, (400, "invalid_parameter", "rmp")),
        ("POST", "/keys", {"networks": ["nowhere"]}, (422, "invalid_parameter", "networks.0")),
        ("POST", "/keys", {"quota_zone": "Mars/Olympus"}, (422, "invalid_parameter", "quota_zone")),
        ("POST", "/keys", [], (400, "invalid_parameter", None)),
        ("POST", "/credentials", {"tokens": []}, (400, "invalid_parameter", "tokens")),
        ("POST", "/credentials", {"tokens": ["a"], "pool": "none"}, (404, "not_found", None)),
        ("GET", "/keys?limit=0", None, (400, "invalid_parameter", "limit")),
        ("GET", "/keys?limit=1&limit=2", None, (400, "invalid_parameter", "limit")),
        ("GET", "/keys?cursor=nowhere", None, (404, "not_found", "cursor")),
        ("GET", "/keys?other=1", None, (400, "invalid_parameter", "other")),
        ("GET", "/live?other=1", None, (400, "unknown_parameter", "other")),
        ("GET", "/usage?by=credential,key", None, (409, "conflict", "by")),
        ("GET", "/usage?by=colour", None, (400, "invalid_parameter", "by")),
        ("GET", "/logs?cursor=x", None, (404, "not_found", "cursor")),
        ("GET", "/logs?since=nan", None, (400, "invalid_parameter", "since")),
        ("GET", "/keys/nothing", None, (404, "not_found", None)),
        ("GET", "/pools/nothing", None, (404, "not_found", None)),
        ("PUT", "/keys", None, (405, "method_not_allowed", None)),
        ("PUT", "/credentials/revoke", None, (405, "method_not_allowed", None)),
        # The id was `.`, which clients drop.
        ("POST", "/credentials/revoke", {}, (404, "unknown_url", None)),
        ("PATCH", "/credentials/", {"label": "x"}, (404, "unknown_url", None)),
        ("GET", "/nothing", None, (404, "unknown_url", None)),
    ],
)
def test_invalid_request_is_refused_with_its_parameter(
    api: Api, method: str, path: str, body: Any, expected: tuple[Any, ...]
):
    assert error(api(method, path, body)) == expected


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"name": "\\ud800"}', b"[" * 100_000])
def test_body_that_is_not_json_is_a_400(api: Api, data: bytes):
    assert error(api("POST", "/keys", data=data))[:2] == (400, "invalid_json")


# Keys


def test_key_is_created_changed_and_revoked(api: Api):
    created = api("POST", "/keys", {"name": "laptop", "rpm": 600, "weight": 2.5, "networks": ["192.0.2.7"]})
    assert created.status_code == 201
    key = created.json
    assert (key["rpm"], key["weight"], key["networks"]) == (600, 2.5, ["192.0.2.7/32"])
    assert key["key"].startswith("sk-")
    shown = api("GET", f"/keys/{key['id']}")
    assert "key" not in shown.json
    changed = api("PATCH", f"/keys/{key['id']}", {"rpm": 60}, headers={"if-match": shown.headers["etag"]})
    assert (changed.json["rpm"], changed.json["weight"], changed.json["version"]) == (60, 2.5, 2)
    late = api("PATCH", f"/keys/{key['id']}", {"rpm": 1}, headers={"if-match": shown.headers["etag"]})
    assert error(late)[:2] == (412, "version_conflict")
    assert not api("POST", f"/keys/{key['id']}/revoke", {}).json["enabled"]
    assert error(api("PATCH", f"/keys/{key['id']}", {"rpm": 1}))[:2] == (409, "conflict")


def test_lists_are_paginated(api: Api):
    for number in range(7):
        ApiKeys(api.redis).create(f"key {number}")
    names, cursor = [], ""
    while cursor is not None:
        page = api("GET", f"/keys?limit=3&cursor={cursor}").json
        names += [key["name"] for key in page["data"]]
        cursor = page["next"]
    assert names == [f"key {number}" for number in range(7)]


# Credentials


def test_tokens_are_imported_line_by_line_and_never_returned(api: Api):
    tokens = ["\ufefftoken-one\r", "", "token-one", "two words"]
    report = api("POST", "/credentials", {"tokens": tokens, "label": "x"}).json
    assert (report["added"], report["duplicates"], report["blanks"], report["invalid"]) == (1, 1, 1, 1)
    assert [line["outcome"] for line in report["lines"]] == ["added", "blank", "duplicate", "invalid"]
    (record,) = api("GET", "/credentials").json["data"]
    assert (record["id"], record["label"], record["state"]) == (report["lines"][0]["id"], "x", "active")
    responses = [api("GET", path).get_data(as_text=True) for path in ("/credentials", "/audit", "/pools", "/live")]
    assert "token-one" not in "".join(responses)
    assert "a client secret" not in "".join(responses)


def test_a_text_is_previewed_and_imported_with_a_reason_for_each_invalid_line(api: Api):
    text = "email,password,refresh_token\nu@x.com,hunter2,token-one\nv@x.com,hunter2,\n"
    preview = api("POST", "/credentials/import", {"text": text, "dry_run": True}).json
    assert (preview["added"], preview["invalid"], api("GET", "/credentials").json["data"]) == (1, 1, [])
    report = api("POST", "/credentials/import", {"text": text}).json
    assert [(line["number"], line["outcome"], line["reason"]) for line in report["lines"]] == [
        (2, "added", ""),
        (3, "invalid", "there is no refresh token in it"),
    ]
    assert api("POST", "/credentials", {"tokens": ["token-one"], "dry_run": True}).json["duplicates"] == 1
    assert api("POST", "/credentials/import", {"text": text, "pool": "none"}).status_code == 404
    assert "hunter2" not in dump_redis(api.redis)


def test_credential_is_disabled_enabled_and_removed_with_a_history(api: Api):
    (line,) = api("POST", "/credentials", {"tokens": ["token"]}).json["lines"]
    path = f"/credentials/{line['id']}"
    etag = api("GET", path).headers["etag"]
    assert api("PATCH", path, {"state": "disabled", "label": "spare"}).json["state"] == "disabled"
    assert error(api("PATCH", path, {"label": "y"}, headers={"if-match": etag}))[:2] == (412, "version_conflict")
    assert api("PATCH", path, {"state": "active"}).json["label"] == "spare"
    states = [(change["state"], change["reason"]) for change in api("GET", f"{path}/history").json["data"]]
    assert states == [("active", ""), ("disabled", "by a person")]
    assert api("GET", path).json["explanation"] == {
        "rule": "it can serve, but no worker process runs",
        "next": "it takes requests once one does",
        "code": "",
    }
    assert [api("GET", f"/credentials?state={s}").json["data"] != [] for s in ("active", "dead")] == [True, False]
    assert api("GET", "/credentials?pool=other").json["data"] == []
    assert api("DELETE", path).status_code == 204
    gone = api("GET", path)
    assert error(gone)[:2] == (404, "not_found")
    told = rf"no credential '{line['id']}': spare of pool default was removed at \d.* UTC by token \w+"
    assert re.fullmatch(told, gone.json["error"]["message"])
    assert api.redis.keys(f"*{line['id']}*") == [keys.removed(line["id"]).encode()]


def test_credential_shows_evidence_and_what_it_has_done(api: Api):
    (line,) = api("POST", "/credentials", {"tokens": ["token"]}).json["lines"]
    path = f"/credentials/{line['id']}"
    new = api("GET", path).json
    assert new["last_hour"] == {"served": 0, "failed": 0, "success_rate": None, "first_byte_p50_ms": None}
    assert (new["last_used_at"], new["in_flight"], new["last_failure"], new["allowance"], new["last_test"]) == (
        *(0, 0),
        *(None, None, None),
    )
    evidence = Evidence("upstream", 429, "slow_down", 30.0)
    Credentials(api.redis).set_state("default", line["id"], "cooling", "rate_limited", clock.now() + 30, evidence)
    counts = SlotCounts(3, 1, Counter({find_bucket(0.25): 3}))
    limits = Allowance(clock.now(), (Left("requests", 4, 60),)).encode()
    gains = Gains({"used_at": 5, "allowance": limits}, {slot_start(clock.now()): counts})
    store = ActivityStore(api.redis)
    store.record({line["id"]: gains})
    store.keep_test(line["id"], {"ok": True, "status": 200, "chat_ms": 12})
    (shown,) = api("GET", "/credentials").json["data"]
    assert shown == api("GET", path).json
    expected = {"source": "upstream", "status": 429, "code": "slow_down", "retry_after": 30.0}
    assert (shown["evidence"], shown["explanation"]["code"]) == (expected, "slow_down")
    (change,) = api("GET", f"{path}/history").json["data"]
    assert change["evidence"] == {**expected, "retry_after": None}
    recent = shown["last_hour"]
    assert (recent["served"], recent["failed"], recent["success_rate"]) == (3, 1, 0.75)
    assert recent["first_byte_p50_ms"] == pytest.approx(250, rel=0.2)
    assert (shown["last_used_at"], shown["allowance"]["left"][0]["remaining"]) == (5, 4)
    assert (shown["last_test"]["ok"], shown["last_test"]["status"], shown["last_test"]["chat_ms"]) == (True, 200, 12)


def test_credential_gets_limits_of_its_own_and_gives_them_back(api: Api):
    (line,) = api("POST", "/credentials", {"tokens": ["token"]}).json["lines"]
    path = f"/credentials/{line['id']}"
    new = api("GET", path)
    assert (new.json["account_rpm"], new.json["limits"]) == (None, [])
    limited = api("PATCH", path, {"account_rpm": 3, "account_gap": 0.5}).json
    assert (limited["account_rpm"], limited["account_tpm"], limited["account_gap"]) == (3, None, 0.5)
    assert [(use["name"], use["remaining"], use["is_own"]) for use in limited["limits"]] == [
        ("account_rpm", 3, True),
        ("account_gap", None, True),
    ]
    etag = {"if-match": new.headers["etag"]}
    assert error(api("PATCH", path, {"account_rpm": 4}, headers=etag))[:2] == (412, "version_conflict")
    assert api("PATCH", path, {"label": "x"}).json["account_rpm"] == 3
    assert api("PATCH", path, {"account_rpm": None}).json["account_rpm"] is None
    assert api("PATCH", path, {"account_rpd": 0}).json["account_rpd"] == 0
    assert [use["name"] for use in api("GET", path).json["limits"]] == ["account_gap"]
    for wrong in ({"account_rpm": -1}, {"account_rpm": 1.5}, {"account_gap": "1"}, {"account_tpm": 10**13}):
        assert error(api("PATCH", path, wrong))[0] == 400


def test_credentials_of_one_state_are_enabled_at_once(api: Api):
    lines = api("POST", "/credentials", {"tokens": ["a", "b", "c"]}).json["lines"]
    store = Credentials(api.redis)
    for line in lines[:2]:
        store.set_state("default", line["id"], "dead", "invalid_grant")
    api.redis.hset(keys.credential(lines[0]["id"]), "state_since", 1000)
    for nobody in ({"state": "disabled"}, {"state": "dead", "since": time.time() + 9}, {"state": "dead", "pool": "x"}):
        assert api("POST", "/credentials/enable", nobody).json["ids"] == []
    assert api("POST", "/credentials/enable", {"state": "dead", "since": 2000}).json["ids"] == [lines[1]["id"]]
    assert api("POST", "/credentials/enable", {"state": "dead"}).json["ids"] == [lines[0]["id"]]
    assert {record["state"] for record in api("GET", "/credentials").json["data"]} == {"active"}


def test_foreign_credential_is_adopted(api: Api):
    (line,) = api("POST", "/credentials", {"tokens": ["token"]}).json["lines"]
    path = f"/credentials/{line['id']}"
    elsewhere = PoolSettings(token_url="https://login.other.example/token")
    TokenOrigins(api.redis).reconcile([elsewhere])
    assert api("GET", "/credentials?state=foreign").json["data"][0]["id"] == line["id"]
    refused = api("POST", f"{path}/refresh", {}).json
    assert (refused["ok"], "adopt" in refused["error"]) == (False, True)
    assert error(api("PATCH", path, {"state": "active"}))[:2] == (409, "conflict")
    adopted = api("POST", f"{path}/adopt", {}).json
    assert (adopted["state"], adopted["token_origin"]) == ("active", "https://token.example")


def test_operation_without_a_worker_process_is_a_503(api: Api):
    (line,) = api("POST", "/credentials", {"tokens": ["token"]}).json["lines"]
    for kind in ("test", "refresh", "revoke"):
        assert error(api("POST", f"/credentials/{line['id']}/{kind}", {}))[:2] == (503, "no_worker")
    assert error(api("POST", "/credentials/none/test", {}))[:2] == (404, "not_found")


# Filters and order of lists


@pytest.fixture
def listed(api: Api) -> dict[str, str]:
    """Label -> id of three credentials."""
    store = Credentials(api.redis)
    ids = {label: store.add("default", f"token-{label}", label)[0] for label in ("Anna", "bert", "carl*")}
    store.set_state("default", ids["bert"], "dead", "invalid_grant")
    store.set_state("default", ids["carl*"], "cooling", "rate_limited", time.time() + 60)
    api.redis.hset(keys.credential(ids["Anna"]), "account", "someone@example.com")
    return ids


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("state=dead,cooling", ["bert", "carl*"]),
        ("reason=rate_limited", ["carl*"]),
        ("text=AN", ["Anna"]),
        ("text=*n*a", ["Anna"]),
        ("text=n?a", []),
        ("text=e@example", ["Anna"]),
        ("text=someone", []),
        ("sort=label", ["Anna", "bert", "carl*"]),
        ("sort=-label", ["carl*", "bert", "Anna"]),
        ("sort=-state&state=active,dead", ["bert", "Anna"]),
    ],
)
def test_credentials_are_filtered_and_sorted(api: Api, listed: dict[str, str], query: str, labels: list[str]):
    page = api("GET", f"/credentials?{query}").json
    assert [record["label"] for record in page["data"]] == labels
    assert sum(page["states"].values()) == len(labels)


def test_pages_keep_filter_and_order(api: Api, listed: dict[str, str]):
    first = api("GET", "/credentials?sort=-label&limit=2").json
    rest = api("GET", f"/credentials?sort=-label&limit=2&cursor={first['next']}").json
    assert [record["label"] for record in (*first["data"], *rest["data"])] == ["carl*", "bert", "Anna"]
    assert first["states"] == {"active": 1, "cooling": 1, "dead": 1}
    assert api("GET", "/credentials?state=ill").status_code == 400
    assert api("GET", "/credentials?sort=sealed").status_code == 400


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["first", "off", "old", "gone"]),
        ("state=enabled", ["first"]),
        ("state=disabled", ["off"]),
        ("state=expired", ["old"]),
        ("state=revoked", ["gone"]),
        ("text=O*", ["off", "old"]),
        ("sort=-name&state=", ["old", "off", "gone", "first"]),
        ("unused_since=1000", ["off", "old", "gone"]),
        ("sort=-last_used_at", ["first", "off", "old", "gone"]),
    ],
)
def test_keys_are_filtered_and_sorted(api: Api, query: str, names: list[str]):
    store = ApiKeys(api.redis)
    for name, fields in {"first": {}, "off": {"enabled": False}, "old": {"expires_at": 1.0}, "gone": {}}.items():
        _, key = store.create(name, **fields)
        if name == "gone":
            store.revoke(key.id)
        elif name == "first":
            api.redis.hset(keys.LAST_USED, key.id, 2000)
    page = api("GET", f"/keys?{query}").json
    assert ([key["name"] for key in page["data"]], page["total"]) == (names, len(names))


def test_key_is_rotated_and_its_former_secrets_ended(api: Api):
    created = api("POST", "/keys", {"name": "laptop", "rpm": 9}).json
    rotated = api("POST", f"/keys/{created['id']}/rotate", {"grace_hours": 1}).json
    assert (rotated["id"], rotated["rpm"], rotated["key"] != created["key"]) == (created["id"], 9, True)
    assert rotated["superseded_until"] == pytest.approx(rotated["rotated_at"] + 3600)
    ended = api("POST", f"/keys/{created['id']}/end-former", {}).json
    assert (ended["hint"], "key" in ended) == (rotated["hint"], False)
    assert [ApiKeys(api.redis).find(hash_secret(each["key"])).is_expired for each in (created, rotated)] == [
        True,
        False,
    ]
    assert error(api("POST", f"/keys/{created['id']}/rotate", {"grace_hours": -1})) == (
        *(400, "invalid_parameter"),
        "grace_hours",
    )
    audit = api("GET", f"/audit?target={created['id']}").json["data"]
    assert [entry["action"] for entry in audit] == ["key.end_former", "key.rotate", "key.create"]
    api("POST", f"/keys/{created['id']}/revoke", {})
    assert error(api("POST", f"/keys/{created['id']}/rotate", {}))[:2] == (409, "conflict")


def test_key_tells_what_it_uses_of_its_limits(api: Api):
    store = ApiKeys(api.redis)
    _, short = store.create("short", quota_tokens=100, rpm=5)
    store.create("plenty", quota_tokens=100)
    api.redis.hset(keys.quota(short.id), mapping={"period": "-", "tokens": 90, "reserved": 5})
    record_refusals(api.redis, {(short.id, "queue_full"): 2})
    assert api("GET", f"/keys/{short.id}/use").json == {
        "limits": [
            {"name": "rpm", "used": 0, "limit": 5, "reserved": 0, "resets_at": 0},
            {"name": "quota_tokens", "used": 90, "limit": 100, "reserved": 5, "resets_at": 0},
        ],
        "held": 0,
        "refused": {"queue_full": 2},
    }
    assert [key["name"] for key in api("GET", "/keys?quota_above=0.8").json["data"]] == ["short"]
    assert error(api("GET", "/keys/nobody/use"))[:2] == (404, "not_found")


def test_models_of_all_pools_are_listed_with_those_that_patterns_match(api: Api):
    api.redis.set(keys.models("default"), json.dumps({"data": [{"id": "gpt-a"}, {"id": "other"}]}), ex=7 * 86_400)
    found = api("GET", "/models?models=gpt-*,x&pools=def*").json
    assert found == {
        "data": [
            {"model": "gpt-a", "pool": "default", "matches": True},
            {"model": "other", "pool": "default", "matches": False},
        ],
        "total": 2,
        "matching": 1,
    }


# Usage, log, audit


@pytest.fixture
def used(api: Api) -> Api:
    entries = [
        LogEntry(
            f"req_{i}", f"k{i % 2}", "default", "=m", "/chat/completions", status=200, credential="c", prompt_tokens=3
        )
        for i in range(5)
    ]
    RequestLog(api.redis).write([*entries, LogEntry("req_bad", "k1", status=429, code="queue_full")])
    UsageRollup(api.redis, 1000, 7, 31).roll_up()
    return api


def test_usage_is_grouped_and_filtered(used: Api):
    (total,) = used("GET", "/usage").json["data"]
    assert (total["requests"], total["failed"], total["total_tokens"]) == (6, 1, 15)
    rows = used("GET", "/usage?by=key,model&key=k1").json["data"]
    assert [(row["key"], row["model"], row["requests"]) for row in rows] == [("k1", "", 1), ("k1", "=m", 2)]
    assert used("GET", f"/usage?until={time.time() - 90_000}").json["data"] == []
    assert used("GET", "/usage?by=time,credential&step=day").json["data"][0]["credential"] == "c"


def test_usage_and_log_have_names_beside_ids(used: Api):
    _, key = ApiKeys(used.redis).create("reader")
    RequestLog(used.redis).write([LogEntry("req_named", key.id, "default", "m", status=200, credential="c")])
    (entry,) = used("GET", "/logs?request=req_named").json["data"]
    assert (entry["key_name"], entry["credential_name"]) == ("reader", "")
    assert used("GET", "/usage?by=key").json["data"][0]["key_name"] == ""
    assert used("GET", "/logs?format=csv").get_data(as_text=True).splitlines()[1].endswith(",reader,")


def test_log_is_paginated_and_filtered(used: Api):
    first = used("GET", "/logs?limit=4").json
    assert [entry["request"] for entry in first["data"]] == ["req_bad", "req_4", "req_3", "req_2"]
    rest = used("GET", f"/logs?limit=4&cursor={first['next']}").json
    assert ([entry["request"] for entry in rest["data"]], rest["next"]) == (["req_1", "req_0"], None)
    assert [entry["request"] for entry in used("GET", "/logs?outcome=failed").json["data"]] == ["req_bad"]
    assert [entry["request"] for entry in used("GET", "/logs?request=req_1").json["data"]] == ["req_1"]


def test_exports_are_complete_and_escape_spreadsheet_formulas(used: Api):
    table = used("GET", "/logs?format=csv")
    assert table.content_type.startswith("text/csv")
    lines = table.get_data(as_text=True).splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("id,time,request,key,pool,model")
    assert ",'=m," in lines[2]
    assert len(used("GET", "/logs?format=jsonl").get_data(as_text=True).splitlines()) == 6
    assert used("GET", "/usage?by=key&format=csv").get_data(as_text=True).startswith("key,requests,failed,")


def test_audit_log_records_who_changed_what(api: Api):
    api("POST", "/keys", {"name": "one"})
    api("POST", "/credentials", {"tokens": ["a secret token"]})
    entries = api("GET", "/audit").json["data"]
    assert [entry["action"] for entry in entries] == ["credentials.add", "key.create"]
    assert entries[1]["details"] == {"name": "one"}
    assert entries[0]["who"].startswith("token ")
    assert "a secret token" not in repr(entries)
    assert "sk-" not in repr(entries)


def test_pools_and_live_state_are_reported(api: Api):
    assert [pool["name"] for pool in api("GET", "/pools").json["data"]] == ["default", "other"]
    assert api("GET", "/pools/default").json["settings"]["client_secret"] == "set"
    live = api("GET", "/live").json
    assert (live["worker_processes"], [pool["name"] for pool in live["pools"]]) == (0, ["default", "other"])


# The OpenAPI document


def test_openapi_document_names_exactly_the_routes(api: Api):
    document = api("GET", "/openapi.json").json
    assert document["openapi"] == "3.1.0"
    app = api.client.application
    rules = {rule.rule.replace("<", "{").replace(">", "}") for rule in app.url_map.iter_rules() if PREFIX in rule.rule}
    assert set(document["paths"]) == rules - {f"{PREFIX}/openapi.json"}
    references = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            references.update({value["$ref"].rpartition("/")[2]} if "$ref" in value else ())
            [collect(item) for item in value.values()]
        elif isinstance(value, list):
            [collect(item) for item in value]

    collect(document)
    assert references <= set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/credentials/enable", {"OPTIONS", "POST"}),
        ("/credentials/some-id", {"OPTIONS", "GET", "HEAD", "PATCH", "DELETE"}),
        ("/sessions", {"OPTIONS", "GET", "HEAD", "DELETE"}),
    ],
)
def test_options_lists_exactly_the_methods_of_the_path(api: Api, path: str, allowed: set[str]):
    response = api("OPTIONS", path)
    assert (response.status_code, set(response.headers["allow"].split(", "))) == (200, allowed)
