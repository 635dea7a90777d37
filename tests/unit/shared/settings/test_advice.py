"""Settings that are probably mistakes are called out by `./farm config check` and at the start."""

import pytest
from click.testing import CliRunner

from launcher.commands.config import config
from shared.settings.advice import find_warnings
from shared.settings.schema import PoolSettings, Settings
from workers.process.main import log_warnings


def warn(**pool: str) -> list[str]:
    return [str(warning) for warning in find_warnings(Settings(pools=(PoolSettings(**pool),)))]


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://login.example.com/token", True),
        ("http://192.0.2.1/token", True),
        ("https://login.example.com/token", False),
        ("http://127.0.0.2:9/token", False),
        ("http://[::1]:9/token", False),
        ("http://localhost/token", False),
        ("", False),
    ],
)
def test_url_without_tls_is_a_warning_unless_it_is_loopback(url: str, warned: bool):
    for name in ("token_url", "revocation_url", "upstream_url"):
        assert [
            f"FARM_{name.upper()} is http://" in warning for warning in warn(**{name: url}) if "version" not in warning
        ] == [True] * warned


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("https://up.example/v1", False),
        ("https://up.example/v1beta/openai", False),
        ("https://up.example", True),
        ("https://up.example/openai/deployments/m", True),
        ("", False),
    ],
)
def test_upstream_without_a_version_is_a_warning_that_shows_where_requests_go(url: str, warned: bool):
    assert [f"chats go to {url}/chat/completions" in warning for warning in warn(upstream_url=url)] == [True] * warned


def test_settings_that_a_bearer_request_does_not_send_are_a_warning():
    (warning,) = warn(token_request="bearer", client_id="app", client_secret="hush")
    assert warning == "pool default: FARM_CLIENT_ID, FARM_CLIENT_SECRET: not sent with FARM_TOKEN_REQUEST=bearer"


def test_config_check_and_the_log_at_the_start_tell_the_warnings(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("FARM_UPSTREAM_URL", "https://up.example")
    result = CliRunner().invoke(config, ["check"])
    assert result.exit_code == 0
    assert "FARM_UPSTREAM_URL has no version" in result.stderr
    log_warnings(Settings(pools=(PoolSettings(upstream_url="https://up.example", token_url="http://login.example/"),)))
    assert [record.action for record in caplog.records] == ["doubtful_setting", "plain_http"]
