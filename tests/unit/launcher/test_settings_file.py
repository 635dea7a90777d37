"""`./farm config set` and `unset` change one setting of farm.toml and nothing else."""

import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from launcher.commands.config import config
from launcher.settings_file import edit_setting, format_toml
from shared.settings.loading import load_settings

TEXT = """\
# The farm of the office.
max_queue = 2000  # was "500 # or so"

[pools.default]
upstream_url = "https://one.example/v1"
models = [
    "a",  # the good one
    "b",
]
token_url = "https://one.example/oauth/token"

# the other one
[pools.second]
upstream_url = "https://two.example/v1"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "farm.toml"
    monkeypatch.setenv("FARM_CONFIG", str(file))
    return file


def run(*arguments: str, **options: str) -> Result:
    return CliRunner().invoke(config, arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pool", "name", "value", "old", "new"),
    [
        ("", "max_queue", "9", "max_queue = 2000  #", "max_queue = 9  #"),
        ("", "port", "9", 'or so"\n', 'or so"\nport = 9\n'),
        ("default", "models", '["c"]', '[\n    "a",  # the good one\n    "b",\n]', '["c"]'),
        ("second", "upstream_url", '"u"', '"https://two.example/v1"', '"u"'),
        ("second", "slots", "2", 'two.example/v1"\n', 'two.example/v1"\nslots = 2\n'),
        ("default", "slots", "2", 'oauth/token"\n', 'oauth/token"\nslots = 2\n'),
        ("third", "slots", "2", 'two.example/v1"\n', 'two.example/v1"\n\n[pools.third]\nslots = 2\n'),
        ("default", "token_url", None, 'token_url = "https://one.example/oauth/token"\n', ""),
        ("third", "slots", None, "", ""),
        ("", "port", None, "", ""),
    ],
)
def test_one_setting_changes_and_everything_else_stays(pool: str, name: str, value: str | None, old: str, new: str):
    assert edit_setting(TEXT, pool, name, value) == TEXT.replace(old, new, 1)


@pytest.mark.parametrize("value", [True, 3, 1.5, 300.0, 'a "quoted" # text', ("a", "b"), (), {"a b": "c"}, {}])
def test_values_are_formatted_as_toml(value: object):
    parsed = tomllib.loads(f"value = {format_toml(value)}")["value"]
    assert parsed == (list(value) if isinstance(value, tuple) else value)


def test_settings_of_the_farm_and_of_pools_are_written(file: Path):
    assert run("set", "FARM_UPSTREAM_URL", "https://one.example/v1/").exit_code == 0
    assert run("set", "token_url", "https://one.example/token").exit_code == 0
    assert run("set", "max_queue", "7").exit_code == 0
    assert run("set", "model_map", '{"a": "b"}', "--pool", "second").exit_code == 0
    settings = load_settings({}, file)
    assert (settings.max_queue, settings.pool("default").upstream_url) == (7, "https://one.example/v1")
    assert settings.pool("second").model_map == {"a": "b"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("unset", "FARM_MAX_QUEUE").exit_code == 0
    assert run("unset", "model_map", "--pool", "second").exit_code == 0
    assert load_settings({}, file).max_queue != 7


@pytest.mark.parametrize(
    "arguments", [("max_queue", "many"), ("FARM_UPSTREAM_URI", "x"), ("slots", "2", "--pool", "a.b")]
)
def test_refused_setting_changes_nothing(file: Path, arguments: tuple[str, ...]):
    file.write_text(TEXT)
    result = run("set", *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert file.read_text() == TEXT
    assert list(file.parent.iterdir()) == [file]


def test_file_that_is_laid_out_differently_is_left_to_its_author(file: Path):
    text = 'pools = { default = { upstream_url = "https://one.example/v1" } }\n'
    file.write_text(text)
    result = run("set", "upstream_url", "https://two.example/v1")
    assert (result.exit_code, "by hand" in result.stderr) == (1, True)
    assert file.read_text() == text


def test_secret_is_read_from_standard_input_and_not_printed(file: Path):
    result = run("set", "FARM_CLIENT_SECRET", input="hush\n")
    assert (result.exit_code, "hush" in result.output) == (0, False)
    assert load_settings({}, file).pool("default").client_secret == "hush"


def test_override_by_the_environment_is_called_out(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FARM_MAX_QUEUE", "9")
    assert "FARM_MAX_QUEUE is set in this shell" in run("set", "max_queue", "7").stderr
