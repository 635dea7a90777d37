"""Every page of the console, for each role and language: opens, is translated, escapes, and keeps secrets."""

import re
import time
from collections.abc import Iterator
from gettext import NullTranslations
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.credentials.activity.activity import ActivityStore, Gains
from shared.credentials.activity.allowance import Allowance, Left
from shared.credentials.evidence import UPSTREAM, Evidence
from shared.credentials.store import Credentials
from shared.languages import catalogues
from shared.observability.event_log import EventFilter, read_events
from tests.console_content import HOSTILE
from tests.integration.web.console.conftest import LogIn
from web.admin.bulk.progress import ProgressStore
from web.languages import translation

#: Attributes that readers see or hear.
SHOWN_ATTRIBUTES = ("title", "aria-label", "placeholder", "alt")
#: Words that are the same in every language, and those of labels in titles of pages.
NAMES = {"UTC", "translator"}
#: Elements that end by themselves.
VOID = frozenset({"meta", "link", "input", "img", "br", "rect"})
PATHS = (
    "/admin/",
    "/admin/accounts",
    "/admin/accounts?state=dead&state=cooling&sort=requests&order=desc&q=trans*",
    "/admin/accounts?q=nothing-like-it",
    "/admin/accounts/import",
    "/admin/sign-ins",
    "/admin/queue",
    "/admin/capacity",
    "/admin/capacity?pool=default&sort=account&order=desc",
    "/admin/keys",
    "/admin/keys?q=nothing-like-it",
    "/admin/keys/new",
    *(f"/admin/usage?by={by}" for by in ("time", "key", "model", "credential", "time,key")),
    "/admin/requests",
    "/admin/requests?outcome=failed",
    "/admin/requests/req_17",
    "/admin/requests/req_w1",
    "/admin/requests/nope",
    "/admin/playground?model=gpt-small&credential=c1",
    "/admin/plan",
    "/admin/plan?period=day&wait=0.5&percent=99",
    "/admin/plan?period=x&wait=-1&percent=nan",
    "/admin/batches",
    "/admin/files",
    "/admin/pools",
    "/admin/events",
    "/admin/events?kind=operator&reach=24h",
    "/admin/events?around=1",
    "/admin/events/nope",
    "/admin/system",
    "/admin/accounts/nope",
)
#: Pages that a viewer may not open.
ADMIN_PATHS = ("/admin/playground",)


def list_paths(redis: Redis, ids: list[str]) -> list[str]:
    key = next(key for key in ApiKeys(redis).list() if key.name == HOSTILE)
    accounts = [f"/admin/accounts/{credential_id}" for credential_id in ids[:12]]
    bulk = ProgressStore(redis).begin("test", 3)
    ProgressStore(redis).record(bulk, {ids[0]: "ok", ids[1]: HOSTILE})
    incidents = [f"/admin/events/{event.id}" for event in read_events(redis, EventFilter(kind="breaker_opened"))]
    jobs = [f"/admin/files/{id_.decode()}" for id_ in redis.zrange(keys.FILES, 0, -1)]
    jobs += [f"/admin/batches/{id_.decode()}" for id_ in redis.zrange(keys.BATCHES, 0, -1)]
    own = [f"/admin/bulk/{bulk}", f"/admin/keys/{key.id}", f"/admin/keys/{key.id}/edit"]
    return [*PATHS, *accounts, *incidents, *jobs, *own]


class PseudoLanguage(NullTranslations):
    """Brackets around each text that was looked up."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return f"⟦{msgid1 if n == 1 else msgid2}⟧"


class TextFinder(HTMLParser):
    """Collects what a page shows outside of brackets, of `translate="no"` and of `<head>` beside the title."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []
        self.text = ""
        self.attributes: list[str] = []
        self.targets: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        is_translated = given.get("translate") != "no" and tag not in ("script", "style")
        visible = is_translated and all(shown for _, shown in self.open)
        if visible:
            self.attributes += [value for name in SHOWN_ATTRIBUTES if (value := given.get(name))]
        if tag == "form" and given.get("method") == "post":
            self.targets.append(("POST", str(given.get("action", ""))))
        if tag not in VOID:
            self.open.append((tag, is_translated))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        while self.open:
            opened, _ = self.open.pop()
            assert opened == tag or opened in ("p", "li", "option"), f"<{opened}> is closed by </{tag}>"
            if opened == tag:
                return

    def handle_data(self, data: str) -> None:
        if all(shown for _, shown in self.open):
            self.text += data


def find_untranslated(page: str) -> set[str]:
    finder = TextFinder()
    finder.feed(page)
    outside = [text.replace(HOSTILE, "") for text in (finder.text, *finder.attributes)]
    while any("⟦" in text for text in outside):
        shorter = [re.sub(r"⟦[^⟦⟧]*⟧", "", text) for text in outside]
        assert shorter != outside
        outside = shorter
    return {word for text in outside for word in re.findall(r"[^\W\d_]{2,}", text)} - NAMES


@pytest.fixture
def pseudo_language(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    language = catalogues.Language("en", "en", "⟦English⟧", PseudoLanguage())
    monkeypatch.setattr(translation, "load_languages", lambda: {"en": language})
    return


@pytest.mark.parametrize(("role", "language"), [("admin", "zh"), ("viewer", "en")])
def test_every_page_opens(log_in: LogIn, ids: list[str], redis: Redis, role: str, language: str):
    client = log_in(role)
    for path in list_paths(redis, ids):
        page = client.get(path, headers={"accept-language": language})
        is_closed = role == "viewer" and path.startswith(ADMIN_PATHS)
        assert page.status_code == (403 if is_closed else 404 if "nope" in path else 200), path
        assert page.content_type == "text/html; charset=utf-8"
        assert f'<html lang="{catalogues.load_languages()[language].tag}"' in page.text
        assert page.headers["cache-control"] == "no-store"


def test_no_page_has_a_text_that_is_not_translated(
    pseudo_language: None, admin: FlaskClient, ids: list[str], redis: Redis
):
    pages = {path: admin.get(path).text for path in list_paths(redis, ids)}
    assert all("⟦" in page for page in pages.values())
    assert {path: words for path, page in pages.items() if (words := find_untranslated(page))} == {}


def test_pages_escape_what_others_wrote_and_hold_no_token_and_nothing_inline(
    admin: FlaskClient, ids: list[str], redis: Redis
):
    pages = {path: admin.get(path) for path in list_paths(redis, ids)}
    for path, page in pages.items():
        assert "<script>alert" not in page.text, path
        assert "<img src=x" not in page.text, path
        assert "refresh-token-" not in page.text, path
        assert not re.search(r"<style|\sstyle=|\son\w+=\"|javascript:|hx-on", page.text.replace("onerror=alert", "")), (
            path
        )
        assert all("src=" in script for script in re.findall(r"<script[^>]*>", page.text))
        policy = page.headers["content-security-policy"]
        assert ("default-src 'none'" in policy, "unsafe" in policy) == (True, False)
    assert sum("&lt;script&gt;alert" in page.text for page in pages.values()) > 8


def list_forms(client: FlaskClient, paths: list[str]) -> set[str]:
    """Where the forms of these pages post to; without the logout, which everybody may use."""
    found: set[str] = set()
    for path in paths:
        finder = TextFinder()
        finder.feed(client.get(path).text)
        found |= {(target or path).partition("?")[0] for _, target in finder.targets}
    return found - {"/admin/logout"}


def test_viewer_is_shown_no_form_that_changes_something_and_refused_by_each(
    log_in: LogIn, app: Flask, ids: list[str], redis: Redis
):
    paths, viewer = (
        [path for path in list_paths(redis, ids) if not path.endswith(("/edit", "/new", "/import"))],
        log_in("viewer"),
    )
    forms = list_forms(log_in("admin"), paths)
    assert len(forms) > 20
    assert list_forms(viewer, paths) == set()
    before = redis.hgetall("farm:credentials:default")
    rules = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and "POST" in rule.methods
    ]
    for path in {*forms, *(re.sub("<[^>]+>", ids[0], rule) for rule in rules)}:
        refused = viewer.post(path, data={"action": "remove", "sure": "1", "all": "1"})
        assert refused.status_code == 403, path
        assert "viewer" in refused.text
    assert redis.hgetall("farm:credentials:default") == before


def test_page_of_another_origin_changes_nothing(admin: FlaskClient, ids: list[str], redis: Redis):
    for headers in (
        {"origin": "http://localhost:9999"},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "same-site"},
    ):
        refused = admin.post(f"/admin/accounts/{ids[0]}/state", data={"action": "remove"}, headers=headers)
        assert refused.status_code == 403
    assert redis.hexists("farm:credentials:default", ids[0])


def test_account_tells_what_is_left_of_its_limits(admin: FlaskClient, redis: Redis, ids: list[str]):
    Credentials(redis).set_limits(ids[0], {"account_rpm": 7, "account_gap": 2.5})
    page = admin.get(f"/admin/accounts/{ids[0]}?lang=en").text
    assert re.search(r"<dt>Requests left this minute</dt><dd>\D*7\D*/\D*7\D*this account.{1,6}s own", page)
    assert re.search(r"<dt>Seconds between two requests</dt><dd>\D*2.5", page)
    assert "本分钟剩余请求数" in admin.get(f"/admin/accounts/{ids[0]}?lang=zh").text


def test_account_page_shows_evidence_what_is_left_and_the_last_test(admin: FlaskClient, redis: Redis, ids: list[str]):
    evidence = Evidence(UPSTREAM, 429, "rate_limited", 30.0)
    Credentials(redis).set_state("default", ids[15], "cooling", "rate_limited", time.time() + 600, evidence)
    allowance = Allowance(time.time(), [Left("requests-day", 3.0, 50.0, time.time() + 3600)]).encode()
    failure = {"failed_at": time.time(), "failed_outcome": "cut", "failed_evidence": "upstream 502 bad_gateway"}
    ActivityStore(redis).record({ids[15]: Gains({"allowance": allowance, "used_at": time.time(), **failure})})
    ActivityStore(redis).keep_test(ids[15], {"ok": True, "status": 200, "refresh_ms": 41, "chat_ms": 1234})
    redis.hset(keys.credential(ids[15]), mapping={"rotations": 3, "rotated_at": time.time() - 7200})
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", admin.get(f"/admin/accounts/{ids[15]}?lang=en").text))
    for shown in (
        *("Evidence upstream 429 rate_limited wait 30 s, as it said", "requests-day 3 50", "in 59 min"),
        *("passed 200 Refresh 41 ms", "1.2 s", "s ago cut upstream 502 bad_gateway"),
        *("Last rotation 2 h ago", "the present token exists only here"),
    ):
        assert shown in text, shown


def test_limits_of_an_account_are_set_on_its_page(admin: FlaskClient, redis: Redis, ids: list[str]):
    path = f"/admin/accounts/{ids[0]}"
    form = {"account_rpm": "7", "account_tpm": "", "account_rpd": "0", "account_gap": "0.5"}
    assert "The limits were saved." in admin.post(f"{path}/limits", data=form, follow_redirects=True).text
    record = Credentials(redis).get(ids[0], ["default"])
    assert (record.account_rpm, record.account_tpm, record.account_rpd, record.account_gap) == (7, None, 0, 0.5)
    admin.post(f"{path}/limits", data={})
    assert Credentials(redis).get(ids[0], ["default"]).account_rpm is None
    for bad in ("x", "-1", "1e400", "[1]", "2.5"):
        assert admin.post(f"{path}/limits", data={"account_rpm": bad}).status_code == 422


def test_pools_page_shows_what_a_reload_would_change(
    admin: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
):
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("FARM_CONFIG", str(tmp_path / "farm.toml"))
    settings = (
        'drain = 5\n[pools.default]\nupstream_url = "https://upstream.example/v1"\n'
        'token_url = "https://tokens.example/token"\nclient_secret = "one that nobody sees"\n'
    )
    (tmp_path / "farm.toml").write_text(settings)
    page = admin.get("/admin/pools?lang=en").text
    assert re.search(r"<code>drain</code>.*\n.*>30<.*>5<", page), page
    assert re.search(r"<code>pools.default.client_secret</code>.*\n.*>unset<.*>set<", page)
    assert ("nobody sees" in page, "send SIGHUP" in page) == (False, True)
    (tmp_path / "farm.toml").write_text("drain = 'soon'")
    assert "a reload would change nothing" in admin.get("/admin/pools?lang=en").text
    assert admin.post("/admin/pools/reload").status_code == 409


def test_language_and_theme_are_kept_and_the_address_stays(admin: FlaskClient, ids: list[str]):
    page = admin.get("/admin/accounts?state=dead&lang=zh&theme=dark")
    assert ('data-theme="dark"' in page.text, "账号" in page.text) == (True, True)
    assert "state=dead" in re.findall(r'href="([^"]*lang=en[^"]*)"', page.text)[0]
    again = admin.get("/admin/keys", headers={"accept-language": "en"})
    assert ('data-theme="dark"' in again.text, "密钥" in again.text) == (True, True)
    assert "Keys" in admin.get("/admin/keys?lang=en").text


def test_login_leads_back_to_the_page_and_nowhere_else(app: Flask, log_in: LogIn):
    stranger = app.test_client()
    sent = stranger.get("/admin/accounts?state=dead", headers={"accept": "text/html"})
    assert sent.location == "/admin/login?next=/admin/accounts?state%3Ddead"
    fragment = stranger.get("/admin/accounts", headers={"hx-request": "true"})
    assert (fragment.headers["hx-redirect"], fragment.data) == ("/admin/login?next=/admin/accounts", b"")
    client = log_in()
    for bad in ("//evil.example", "https://evil.example/admin/", "/admin/..//evil", "/other", "/admin/\\evil"):
        page = client.get("/admin/login", query_string={"next": bad})
        assert "evil" not in page.text or "/admin/" in page.text
        assert f'action="/admin/login?next={bad}"' not in page.text or bad.startswith("/admin/")


def test_files_are_open_and_kept_by_their_content(app: Flask):
    stranger = app.test_client()
    page = stranger.get("/admin/login").text
    for url in re.findall(r'(?:src|href)="(/admin/static/[^"]+)"', page):
        file = stranger.get(url)
        assert (file.status_code, file.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
        file.close()
        former = stranger.get(url.partition("?")[0])
        assert former.headers["cache-control"] == "no-cache"
        former.close()


def test_headers_over_tls_and_of_the_rq_dashboard(admin: FlaskClient):
    page: Any = admin.get("/admin/keys")
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert "strict-transport-security" not in page.headers
    assert "'unsafe-eval'" in admin.get("/admin/rq/").headers["content-security-policy"]


@pytest.mark.parametrize(("by", "has_chart"), [("time", True), ("credential", True), ("key,model", False)])
def test_script_of_charts_is_loaded_where_one_is_drawn(admin: FlaskClient, ids: list[str], by: str, has_chart: bool):
    page = admin.get(f"/admin/usage?by={by}").text
    assert ("chart.umd" in page, "data-chart" in page) == (has_chart, has_chart)
