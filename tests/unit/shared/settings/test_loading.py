"""Settings are read from the environment and farm.toml, and errors name the setting and its line."""

from dataclasses import fields
from pathlib import Path

import pytest

from launcher.commands.config import build_template
from shared.credentials.kinds import KIND_NAMES, KINDS
from shared.errors import SettingsError
from shared.settings.file_checks import check_files
from shared.settings.kind_checks import read_token_auth_key
from shared.settings.loading import env_names, load_settings, read_data_dir
from shared.settings.schema import PoolSettings, Settings, setting_fields
from tests.environment import ROOT
from workers.upstream.client import UpstreamRoute


def load(tmp_path: Path, environ: dict[str, str] | None = None, toml: str = "") -> Settings:
    file = tmp_path / "farm.toml"
    file.write_text(toml)
    return load_settings(environ or {}, file)


def test_settings_need_no_configuration(tmp_path: Path):
    settings = load(tmp_path)
    assert (settings.host, settings.port, settings.max_body) == ("127.0.0.1", 8000, 26_214_400)
    assert [pool.name for pool in settings.pools] == ["default"]


def test_environment_overrides_the_file(tmp_path: Path):
    settings = load(tmp_path, {"PORT": "9001"}, "port = 9000\nhost = '0.0.0.0'")
    assert (settings.port, settings.host) == (9001, "0.0.0.0")


@pytest.mark.parametrize(
    ("text", "data_dir"),
    [
        ("data_dir = '/there'\nbad = 1", "/there"),
        ("port = 'none'", "./data"),
        ("[broken", "./data"),
        ("pools = 7\ndata_dir = '/there'", "/there"),
    ],
)
def test_data_dir_is_read_from_an_otherwise_invalid_file(tmp_path: Path, text: str, data_dir: str):
    file = tmp_path / "farm.toml"
    file.write_text(text)
    assert read_data_dir({"FARM_CONFIG": str(file), "FARM_BAD": "1"}) == data_dir
    assert read_data_dir({"FARM_CONFIG": str(file), "FARM_DATA_DIR": "/here"}) == "/here"


def test_empty_variable_counts_as_unset(tmp_path: Path):
    assert load(tmp_path, {"PORT": ""}).port == 8000


@pytest.mark.parametrize(
    ("environ", "https", "port"),
    [
        ({}, "off", None),
        ({"FARM_DOMAIN": "farm.example.org"}, "auto", 443),
        ({"FARM_DOMAIN": "farm.example.org", "FARM_HTTPS": "off"}, "off", None),
        ({"FARM_DOMAIN": "farm.lan, 192.0.2.7", "FARM_HTTPS": "internal"}, "internal", 8443),
        ({"FARM_HTTPS": "Internal", "FARM_HTTPS_PORT": "9443"}, "internal", 9443),
    ],
)
def test_public_name_alone_asks_for_https(tmp_path: Path, environ: dict[str, str], https: str, port: int | None):
    settings = load(tmp_path, environ)
    assert (settings.https, settings.has_https) == (https, https != "off")
    assert port is None or settings.https_endpoint_port == port


@pytest.mark.parametrize(
    "environ",
    [
        {"FARM_HTTPS": "auto"},
        {"FARM_DOMAIN": "192.0.2.7"},
        {"FARM_DOMAIN": "https://farm.example.org"},
        {"FARM_DOMAIN": "farm.example.org:8443"},
        {"FARM_DOMAIN": "*.example.org"},
        {"FARM_DOMAIN": "farm example.org"},
        {"FARM_DOMAIN": "-farm.example.org"},
        {"FARM_HTTPS": "on"},
    ],
)
def test_unusable_https_is_an_error_that_names_the_setting(tmp_path: Path, environ: dict[str, str]):
    with pytest.raises(SettingsError, match=next(reversed(environ))):
        load(tmp_path, environ)


def test_public_names_are_read_as_dns_has_them(tmp_path: Path):
    assert load(tmp_path, {"FARM_DOMAIN": "Farm.Example.org., bücher.example"}).domain == (
        "farm.example.org",
        "xn--bcher-kva.example",
    )


def test_environment_variables_set_the_default_pool(tmp_path: Path):
    environ = {
        "FARM_UPSTREAM_URL": "http://up/v1/",
        "FARM_MODELS": "a, b,",
        "FARM_MODEL_MAP": '{"gpt": "a"}',
        "FARM_TOKEN_REQUEST": "bearer",
    }
    pool = load(tmp_path, environ).pool("default")
    assert pool.upstream_url == "http://up/v1"
    assert pool.models == ("a", "b")
    assert pool.model_map == {"gpt": "a"}
    assert pool.token_request == "bearer"


def test_pools_of_the_file_take_settings_in_lower_case(tmp_path: Path):
    toml = '[pools.first]\nupstream_url = "http://one/v1"\n[pools.second]\nfarm_upstream_url = "http://two/v1"'
    settings = load(tmp_path, toml=toml)
    assert [(pool.name, pool.upstream_url) for pool in settings.pools] == [
        ("first", "http://one/v1"),
        ("second", "http://two/v1"),
    ]


@pytest.mark.parametrize(
    ("environ", "toml", "named"),
    [
        ({"FARM_QUEUE_TIMEOT": "3"}, "", "FARM_QUEUE_TIMEOUT"),
        ({"PORT": "eighty"}, "", "PORT"),
        ({"PORT": "70000"}, "", "PORT"),
        ({"FARM_MAX_QUEUE": "0"}, "", "FARM_MAX_QUEUE"),
        ({"FARM_KEEPALIVE": "-1"}, "", "FARM_KEEPALIVE"),
        ({"FARM_KEEPALIVE": "soon"}, "", "FARM_KEEPALIVE"),
        ({"FARM_MODEL_MAP": "[1]"}, "", "FARM_MODEL_MAP"),
        ({"FARM_MODEL_MAP": "{"}, "", "FARM_MODEL_MAP"),
        ({"FARM_TOKEN_REQUEST": "xml"}, "", "FARM_TOKEN_REQUEST"),
        ({"FARM_UPSTREAM_URL": "ftp://x"}, "", "FARM_UPSTREAM_URL"),
        ({"REDIS_URL": "localhost:6379"}, "", "REDIS_URL must begin with redis://"),
        ({"REDIS_URL": "redis://:hush@x:70000/0"}, "", "REDIS_URL has an invalid host or port"),
        ({"REDIS_URL": "redis://x/first"}, "", "REDIS_URL must end with the number"),
        ({"FARM_UPSTREAM_PROXY": "ftp://user:hush@x"}, "", "FARM_UPSTREAM_PROXY must begin with http://"),
        ({"FARM_TOKEN_URL": "https://app:hush@x/token"}, "", "FARM_TOKEN_URL must not contain a user name"),
        ({"FARM_TOKEN_AUTH": "digest"}, "", "FARM_TOKEN_AUTH"),
        ({"FARM_CREDENTIAL_KIND": "password"}, "", "FARM_CREDENTIAL_KIND"),
        ({"FARM_CREDENTIAL_KIND": "api_key", "FARM_PRIVATE_CREDENTIALS": "yes"}, "", "FARM_PRIVATE_CREDENTIALS"),
        ({"FARM_CREDENTIAL_KIND": "service_account", "FARM_TOKEN_REQUEST": "bearer"}, "", "FARM_TOKEN_REQUEST"),
        ({"FARM_TOKEN_AUTH": "private_key_jwt"}, "", "FARM_CLIENT_ID"),
        ({"FARM_TOKEN_HEADERS": '{"x": "hush\\n"}'}, "", "FARM_TOKEN_HEADERS has an invalid value"),
        ({"FARM_UPSTREAM_HEADERS": '{"Content-Length": "7"}'}, "", "FARM_UPSTREAM_HEADERS must not contain the header"),
        (
            {"FARM_UPSTREAM_HEADERS": '{"authorization": "hush"}'},
            "",
            "FARM_UPSTREAM_HEADERS must not contain the header",
        ),
        ({"FARM_TOKEN_URL": "https://"}, "", "FARM_TOKEN_URL has no valid host name"),
        ({"FARM_UPSTREAM_PROXY": "http://user:hush@x:0"}, "", "FARM_UPSTREAM_PROXY has an invalid port"),
        ({"FARM_UPSTREAM_HEADERS": '{"x a": "hush"}'}, "", "FARM_UPSTREAM_HEADERS has an invalid header name 'x a'"),
        ({"FARM_UPSTREAM_HEADERS": '{"x": "hush\\n"}'}, "", "FARM_UPSTREAM_HEADERS has an invalid value"),
        (
            {"FARM_FIRST_BYTE_TIMEOUT": "1000"},
            "",
            "FARM_FIRST_BYTE_TIMEOUT .1000 s. exceeds FARM_TOTAL_TIMEOUT .900 s.",
        ),
        ({"FARM_QUEUE_TIMEOUT": "30"}, "total_timeout = 20", "FARM_QUEUE_TIMEOUT"),
        ({}, "[pools.a]\ntotal_timeout = 20\nidle_timeout = 30", "pools.a: idle_timeout"),
        ({}, "prot = 1", "prot"),
        ({}, "port = true", "port"),
        ({}, "models = [", "farm.toml"),
        ({}, "[pools.default]\nmodels = 3", "models"),
        ({}, "[pools.'a b']\nmodels = 'x'", "pools.a b"),
        ({}, "pools = 3", "pools"),
    ],
)
def test_invalid_setting_is_an_error_that_names_it(tmp_path: Path, environ: dict[str, str], toml: str, named: str):
    with pytest.raises(SettingsError, match=named) as caught:
        load(tmp_path, environ, toml)
    assert "hush" not in str(caught.value)


UNUSABLE_URLS = [
    "http://host:80a/v1",
    "http://host:70000/v1",
    "https:///v1",
    "https://",
    "https://.example.com/v1",
    "https://a..example.com/v1",
    "https://*.example.com/v1",
    "http://up stream/v1",
    "http://up\\stream/v1",
    "http://[::1/v1",
    "http://host/v1?key=1",
    "http://host/v1#top",
    "https://user:hush@host/v1",
    "https://host/v1/chat/completions",
    "https://host/v1/chat/completions/",
    "https://host/completions",
    "https://host/v1/embeddings",
    "https://host/v1/models",
    "https://host/v1/responses",
    "https://host/v1/audio/speech",
]
USABLE_URLS = [
    "http://my_host:80/v1",
    "https://[::1]:8443/v1",
    "https://xn--bcher-kva.example",
    "http://bücher.example/v1",
    "https://host/models",
    "https://host/v1beta/openai",
]

#: What people set, with a password that must not be shown.
BROKEN_REDIS_URLS = [
    "redis://:s3cr#t@h:6379/0",
    "redis://user:123#s3cr@h:6379/0",
    "redis://:s3cr/t@h:6379/0",
    "redis://user:12/s3cr@h:6379/0",
    "redis://:s3cr?t@h:6379/0",
    "redis://user:12?s3cr@h:6379/0",
    "redis://user:12?s3cr=x@h:6379/0",
    "redis://:s3cr t@h:6379/0",
    "redis://:s3cr[t@h:6379/0",
    "redis://:s3cr\\t@h:6379/0",
    '"redis://:s3cr@localhost"',
    "'redis://:s3cr@localhost'",
    "redis:/:s3cr@localhost",
    "redis:localhost",
    "localhost:6379",
    "//:s3cr@localhost",
    ":s3cr@localhost:6379",
    "http://:s3cr@localhost",
    "redis-sentinel://:s3cr@localhost",
    "redis://:s3cr@:6379",
    "redis://:s3cr@h:port",
    "redis://:s3cr@h:6379/0/1",
    "redis://:s3cr@h:6379/-1",
    "redis://:s3cr@h:6379/zero",
    "redis://h:6379/0?db=s3cr",
    "redis://h:6379/0?socket_timeout=s3cr",
    "redis://h:6379/0?passwort=s3cr",
    "redis+sentinel://:s3cr@h:26379",
    "redis+sentinel://:s3cr@/farm",
    "redis+sentinel://:s3cr@a,b:port/farm",
    "redis+sentinel://:s3cr@a,,b/farm",
    "redis+sentinel://:s3cr#t@a/farm",
    "redis+sentinel://:s3cr/t@a/farm",
    "redis+sentinel://a/farm/s3cr",
    "redis+sentinel://a/farm/0/s3cr",
    "redis+sentinel://a/farm?s3cr",
    "redis+sentinel://a/farm?sentinel_s3cr=1",
    "rediss+sentinel://[a:s3cr@b/farm",
    "redis://",
    "unix://",
]
USABLE_REDIS_URLS = [
    "redis://localhost",
    "redis://:p%23ss@h:6379/0",
    "redis://:p@ss:w0rd@h:6379/0",
    "redis://user@h/2",
    "rediss://user:pass@h:6380/0?ssl_cert_reqs=none",
    "redis://[::1]:6379/0?health_check_interval=5",
    "unix:///run/redis.sock?db=1",
    "redis+sentinel://a/farm",
    "redis+sentinel://user:p%40ss@a:26379,b,[::1]:26380/my%20farm/2?sentinel_username=u&sentinel_password=p%23",
    "rediss+sentinel://a,b,c/farm/0?ssl_ca_certs=/ca.pem&sentinel_ssl=no",
]


@pytest.mark.parametrize("url", UNUSABLE_URLS)
def test_url_that_no_request_could_use_is_an_error(tmp_path: Path, url: str):
    with pytest.raises(SettingsError, match="FARM_UPSTREAM_URL"):
        load(tmp_path, {"FARM_UPSTREAM_URL": url})


@pytest.mark.parametrize("url", BROKEN_REDIS_URLS)
def test_broken_url_of_redis_is_one_line_that_shows_no_secret(tmp_path: Path, url: str):
    with pytest.raises(SettingsError, match="REDIS_URL") as caught:
        load(tmp_path, {"REDIS_URL": url})
    assert not {"s3cr", "\n"} & {part for part in ("s3cr", "\n") if part in str(caught.value)}


@pytest.mark.parametrize("url", USABLE_REDIS_URLS)
def test_url_that_redis_takes_is_taken(tmp_path: Path, url: str):
    assert load(tmp_path, {"REDIS_URL": url}).redis_url == url


def test_scheme_may_be_in_any_case(tmp_path: Path):
    environ = {
        "FARM_UPSTREAM_URL": "HTTPS://x/v1",
        "REDIS_URL": "Redis://h:6379/0",
        "FARM_UPSTREAM_PROXY": "SOCKS5://p",
    }
    settings = load(tmp_path, environ)
    assert (settings.redis_url, settings.pools[0].upstream_url) == ("redis://h:6379/0", "https://x/v1")
    assert settings.pools[0].proxy == "socks5://p"


def test_choices_and_codes_may_be_in_any_case(tmp_path: Path):
    environ = {"FARM_LOG_LEVEL": "INFO\r", "FARM_FATAL_TOKEN_ERRORS": "Session_Ended, http_403"}
    settings = load(tmp_path, environ)
    assert (settings.log_level, settings.pools[0].fatal_token_errors) == ("info", ("session_ended", "http_403"))
    toml = "[pools.a]\nfatal_token_errors = [70008, 'Gone']"
    assert load(tmp_path, toml=toml).pools[0].fatal_token_errors == ("70008", "gone")


def test_url_of_the_token_endpoint_is_kept_as_it_is(tmp_path: Path):
    url = "https://login.example/oauth/token/?tenant=7"
    assert load(tmp_path, {"FARM_TOKEN_URL": url}).pools[0].token_url == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FARM_SERVICE_HOST", "10.0.0.1"),
        ("FARM_SERVICE_PORT", "8000"),
        ("FARM_SERVICE_PORT_HTTP", "8000"),
        ("FARM_PORT", "tcp://10.0.0.1:8000"),
        ("FARM_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("FARM_PORT_8000_TCP_PROTO", "tcp"),
        ("FARM_PORT_8000_TCP_PORT", "8000"),
        ("FARM_PORT_53_UDP_ADDR", "10.0.0.1"),
        ("FARM_WEB_SERVICE_HOST", "10.0.0.1"),
        ("FARM_MY_REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("FARM_MY_REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_of_a_kubernetes_service_are_no_settings(tmp_path: Path, name: str, value: str):
    assert load(tmp_path, {name: value}) == load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("FARM_PROT", "1"), ("FARM_PORT", "8000"), ("FARM_SERVICE_HOSTS", "x"), ("FARM_PORT_TCP", "1")]
)
def test_variables_that_only_look_like_a_service_are_errors(tmp_path: Path, name: str, value: str):
    with pytest.raises(SettingsError, match=name):
        load(tmp_path, {name: value})


@pytest.mark.parametrize("url", USABLE_URLS)
def test_url_is_taken_when_the_http_client_takes_it(tmp_path: Path, url: str):
    assert load(tmp_path, {"FARM_UPSTREAM_URL": url}).pools[0].upstream_url == url
    UpstreamRoute(url).open_pool(lambda: None)


def test_short_total_timeout_needs_no_other_timeouts(tmp_path: Path):
    assert load(tmp_path, {"FARM_TOTAL_TIMEOUT": "5"}).max_total_timeout == 5


def test_unusable_files_are_errors_that_name_the_setting(tmp_path: Path):
    (tmp_path / "empty").touch()
    for name, file in (("CA_BUNDLE", "none"), ("CA_BUNDLE", "empty"), ("REFRESH_TOKENS_FILE", "none")):
        settings = load(tmp_path, {f"FARM_{name}": str(tmp_path / file)})
        with pytest.raises(SettingsError, match=f"pool default: FARM_{name}: .*{file}"):
            check_files(settings)
    check_files(load(tmp_path, {"FARM_REFRESH_TOKENS_FILE": str(tmp_path / "empty")}))


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("port = 80\n\nmax_queue = 0\n", 3),
        ("port = 80\nprot = 1\n", 2),
        ("[pools.a]\nslots = 1\n[pools.b]\n# slots\nslots = 0\n", 5),
        ("port = 1\n[pools.a]\nweights = 1\n", 3),
        ("port = 1\nport = 2\n", 2),
    ],
)
def test_error_in_the_file_names_its_line(tmp_path: Path, toml: str, line: int):
    with pytest.raises(SettingsError, match=rf"line {line}\b"):
        load(tmp_path, toml=toml)


def test_pool_may_override_timeouts(tmp_path: Path):
    settings = load(tmp_path, toml="idle_timeout = 7\n[pools.a]\nidle_timeout = 3\n[pools.b]\n")
    assert [settings.with_pool_timeouts(pool).idle_timeout for pool in settings.pools] == [3, 7]


def test_invalid_secret_is_named_but_not_printed(tmp_path: Path):
    with pytest.raises(SettingsError, match="secret_key is not valid") as caught:
        load(tmp_path, toml="secret_key = 12345")
    assert "12345" not in str(caught.value)


def test_repr_hides_secrets(tmp_path: Path):
    environ = {"FARM_SECRET_KEY": "hush1", "FARM_CLIENT_SECRET": "hush2", "REDIS_URL": "redis://:hush3@x"}
    assert "hush" not in repr(load(tmp_path, environ))


def test_every_field_is_a_setting_with_a_help_text():
    for cls, others in ((Settings, {"pools"}), (PoolSettings, {"name"})):
        assert {f.name for f in fields(cls)} - set(setting_fields(cls)) == others
        assert all(f.metadata["help"] for f in setting_fields(cls).values())


def test_settings_template_in_the_repository_is_current():
    assert (ROOT / ".env.example").read_text() == build_template()


def test_every_setting_is_documented():
    documented = (ROOT / "docs" / "configuration.md").read_text()
    assert [name for name in env_names() if f"`{name}`" not in documented] == []


def test_secrets_that_can_be_guessed_are_refused_without_showing_them(tmp_path: Path):
    for name, secret in (("FARM_ADMIN_TOKEN", "hunter2"), ("FARM_METRICS_TOKEN", "hunter2-hunter2")):
        with pytest.raises(SettingsError, match=name) as caught:
            load(tmp_path, {name: secret})
        assert "hunter2" not in str(caught.value)
    assert load(tmp_path, {"FARM_ADMIN_TOKEN": "hunter22"}).admin_token == "hunter22"


def test_kinds_of_the_setting_are_those_that_credentials_have():
    for kind in KINDS:
        assert load_settings({"FARM_CREDENTIAL_KIND": kind}, Path("/nowhere")).pools[0].credential_kind == kind
        assert kind in KIND_NAMES


def test_ways_of_authentication_have_the_names_of_rfc_8414_too():
    for name, way in (("client_secret_basic", "basic"), ("client_secret_post", "body"), ("BASIC", "basic")):
        assert load_settings({"FARM_TOKEN_AUTH": name}, Path("/nowhere")).pools[0].token_auth == way


def test_key_of_the_client_is_pem_or_a_file_of_it_and_is_read_by_workers_alone(tmp_path: Path):
    """A front loads the same farm.toml and may not have the file."""
    pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    (tmp_path / "key.pem").write_text(pem)
    (tmp_path / "cert.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    jwt = {"FARM_TOKEN_AUTH": "private_key_jwt", "FARM_CLIENT_ID": "app"}
    for value in (str(tmp_path / "key.pem"), pem, pem.replace("\n", "\\n")):
        (pool,) = load_settings({**jwt, "FARM_TOKEN_AUTH_KEY": value}, Path("/nowhere")).pools
        assert (read_token_auth_key(pool).strip(), "AAAA" in repr(pool)) == (pem.strip(), False)
    for value in ("", "/nowhere/key.pem", str(tmp_path / "cert.pem")):
        (pool,) = load_settings({**jwt, "FARM_TOKEN_AUTH_KEY": value}, Path("/nowhere")).pools
        with pytest.raises(SettingsError, match="FARM_TOKEN_AUTH_KEY"):
            read_token_auth_key(pool)
