"""The container files fit the code, as Docker Compose itself reads them; there is no Docker engine."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from gunicorn.config import Config
from honcho.environ import parse_procfile

from launcher.processes.redis_server import build_arguments
from shared.files.opening import FOLDER
from shared.settings.loading import COMPOSE_VARIABLES, env_names, reject_unknown_variables
from shared.settings.schema import PoolSettings, Settings, setting_fields
from tests.environment import ROOT

COMPOSE = (ROOT / "docker-compose.yaml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROCFILE = parse_procfile((ROOT / "Procfile").read_text()).processes
SECRETS = {
    setting.metadata["env"]
    for setting in (*setting_fields(Settings).values(), *setting_fields(PoolSettings).values())
    if setting.metadata["secret"]
}
#: What only one side needs. A new secret must be added here and withheld from the other side, or it is in neither.
FRONT_SECRETS = {"FARM_ADMIN_TOKEN", "FARM_API_KEY", "FARM_FILES_URL", "FARM_METRICS_TOKEN"}
#: Credentials of the store that FARM_FILES_URL names; of all programs of the farm only the fronts open it.
STORE_SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
WORKER_SECRETS = {
    *("FARM_ALERT_URLS", "FARM_SECRET_KEY", "FARM_CLIENT_SECRET", "FARM_TOKEN_AUTH_KEY", "FARM_TOKEN_PARAMETERS"),
    *("FARM_TOKEN_HEADERS", "FARM_UPSTREAM_HEADERS", "FARM_UPSTREAM_PROXY"),
}
#: Files that only the workers read.
WORKER_FILES = ("FARM_CA_BUNDLE", "FARM_CLIENT_CERT", "FARM_CLIENT_KEY", "FARM_REFRESH_TOKENS_FILE")
#: The address and the paths in the container; .env has those of the host.
FIXED = {
    "HOST": "0.0.0.0",
    "PORT": "8000",
    "FARM_DATA_DIR": "/opt/farm/data",
    "FARM_CONFIG": "/opt/farm/farm.toml",
    "FARM_CA_BUNDLE": "/run/farm/ca-bundle",
    "FARM_CLIENT_CERT": "/run/farm/client-cert",
    "FARM_CLIENT_KEY": "/run/farm/client-key",
    "FARM_REFRESH_TOKENS_FILE": "/run/farm/refresh-tokens",
}
MINIMAL = {"FARM_SECRET_KEY": "key", "FARM_UPSTREAM_URL": "https://a.test/v1", "FARM_TOKEN_URL": "https://a.test/t"}


def run_compose(folder: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """`docker compose config` of the file with these variables in `.env`."""
    (folder / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in variables.items()))
    program = str(Path(sys.executable).with_name("docker-compose"))
    file = ("--file", str(ROOT / "docker-compose.yaml"), "--project-directory", str(folder))
    command = [program, *file, "--profile", "*", "config", "--format", "json"]
    return subprocess.run(command, env={"HOME": str(folder)}, cwd=folder, capture_output=True, text=True)


def resolve(folder: Path, variables: dict[str, str]) -> dict[str, Any]:
    """The services as Compose would start them."""
    result = run_compose(folder, variables)
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout)["services"])


@cache
def compose_variables() -> set[str]:
    """Names of all variables that the file reads."""
    return set(re.findall(r"\$\{(\w+)", COMPOSE))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The services with every setting in `.env`, each with a value of its own."""
    names = {*env_names(), *COMPOSE_VARIABLES, *STORE_SECRETS}
    values = {name: f"value-of-{name}" for name in names} | {"FARM_PUBLISH": "127.0.0.1:9000"}
    return resolve(tmp_path_factory.mktemp("compose"), values)


@pytest.fixture(scope="module")
def minimal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The services with nothing but the necessary settings."""
    return resolve(tmp_path_factory.mktemp("compose"), MINIMAL)


def list_binds(service: dict[str, Any]) -> list[dict[str, Any]]:
    """The files of the host that are mounted."""
    return [mount for mount in service["volumes"] if mount["type"] == "bind"]


def test_every_setting_of_the_environment_file_reaches_its_service(services: dict[str, Any]):
    for side, foreign in (("web", WORKER_SECRETS), ("worker", FRONT_SECRETS)):
        environment = services[side]["environment"]
        expected = {name: FIXED.get(name, f"value-of-{name}") for name in set(env_names()) - foreign}
        if side == "web":
            expected |= dict.fromkeys(WORKER_FILES, "")
        assert {name: environment.get(name) for name in expected} == expected


def test_each_side_gets_only_its_own_secrets(services: dict[str, Any]):
    assert FRONT_SECRETS | WORKER_SECRETS | {"REDIS_URL"} == SECRETS
    for name, service in services.items():
        values = {key for key in SECRETS | STORE_SECRETS if f"value-of-{key}" in json.dumps(service)}
        front_secrets = FRONT_SECRETS | STORE_SECRETS | {"REDIS_URL"}
        allowed = {"web": front_secrets, "worker": WORKER_SECRETS | {"REDIS_URL"}}.get(name, set())
        assert values == allowed, name


def test_variables_of_the_compose_file_stop_no_start(services: dict[str, Any]):
    farm_variables = {name for name in compose_variables() if name.startswith("FARM_")}
    assert farm_variables - set(env_names()) <= set(COMPOSE_VARIABLES)
    for side in ("web", "worker"):
        reject_unknown_variables(services[side]["environment"])


def test_files_that_settings_name_are_mounted_where_they_are_needed(services: dict[str, Any]):
    mounts = {
        side: {
            mount["target"]: (Path(mount["source"]).name, mount["read_only"]) for mount in list_binds(services[side])
        }
        for side in ("web", "worker")
    }
    settings_file = {"/opt/farm/farm.toml": ("value-of-FARM_CONFIG", True)}
    assert mounts["web"] == settings_file
    assert mounts["worker"] == settings_file | {FIXED[name]: (f"value-of-{name}", True) for name in WORKER_FILES}


def test_files_that_are_not_configured_are_empty(minimal: dict[str, Any]):
    sources = {mount["source"] for side in ("web", "worker") for mount in list_binds(minimal[side])}
    assert sources == {"/dev/null"}
    assert not any(minimal["worker"]["environment"][name] for name in WORKER_FILES)
    assert minimal["worker"]["environment"]["REDIS_URL"] == "redis://redis:6379/0"


@pytest.mark.parametrize("missing", ["FARM_SECRET_KEY", "FARM_UPSTREAM_URL"])
def test_compose_names_a_setting_that_is_missing(tmp_path: Path, missing: str):
    result = run_compose(tmp_path, {name: value for name, value in MINIMAL.items() if name != missing})
    assert result.returncode
    assert missing in result.stderr


def test_upstreams_may_be_in_a_settings_file_instead(tmp_path: Path):
    services = resolve(tmp_path, {"FARM_SECRET_KEY": "key", "FARM_CONFIG": "./farm.toml"})
    assert services["web"]["volumes"][0]["source"] == str(tmp_path / "farm.toml")


def test_compose_file_runs_the_commands_of_the_procfile(minimal: dict[str, Any]):
    commands = {name: re.sub(r"^env( -u \w+)+ ", "", command) for name, command in PROCFILE.items()}
    assert {name: " ".join(minimal[name]["command"]) for name in PROCFILE} == commands


def test_processes_of_the_procfile_get_only_their_own_secrets():
    withheld = {name: set(re.findall(r"-u (\w+)", command)) for name, command in PROCFILE.items()}
    assert withheld == {"web": WORKER_SECRETS, "worker": FRONT_SECRETS | STORE_SECRETS}


def test_containers_get_the_time_that_requests_get(minimal: dict[str, Any]):
    for side in ("web", "worker"):
        minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", minimal[side]["stop_grace_period"]).groups()
        assert int(minutes or 0) * 60 + int(seconds) >= Settings.drain + 60


def test_containers_of_the_farm_have_no_more_rights_than_they_need(minimal: dict[str, Any]):
    for side in ("web", "worker"):
        service = minimal[side]
        assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service


def test_worker_service_can_be_scaled(minimal: dict[str, Any]):
    assert not {"container_name", "ports"} & set(minimal["worker"])
    assert all(mount["read_only"] for mount in minimal["worker"]["volumes"])


def test_every_service_has_a_health_check(minimal: dict[str, Any]):
    for name, service in minimal.items():
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
    module = minimal["worker"]["healthcheck"]["test"][-1]
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()


def test_caddy_of_the_compose_file_serves_https_only_when_asked(minimal: dict[str, Any]):
    assert [name for name, service in minimal.items() if service.get("profiles")] == ["caddy"]
    assert minimal["caddy"]["profiles"] == ["https"]
    assert {(port["published"], port["protocol"]) for port in minimal["caddy"]["ports"]} == {
        ("80", "tcp"),
        ("443", "tcp"),
        ("443", "udp"),
    }


def test_caddy_of_the_compose_file_reaches_the_front_by_the_socket_that_gunicorn_opens(tmp_path: Path):
    services = resolve(tmp_path, {**MINIMAL, "FARM_DOMAIN": "farm.example, other.example"})
    web, caddy = services["web"], services["caddy"]
    volumes = {
        side: {mount["target"]: mount["source"] for mount in services[side]["volumes"] if mount["type"] == "volume"}
        for side in ("web", "caddy")
    }
    assert volumes["web"]["/run/front"] == volumes["caddy"]["/run/front"]
    binds = Config(prog="gunicorn").parser().parse_args(web["environment"]["GUNICORN_CMD_ARGS"].split()).bind
    assert binds == ["0.0.0.0:8000", "unix:/run/front/web.sock"]

    # What stands in the mounted folder is what Caddy understands.
    assert [(mount["source"], mount["target"]) for mount in list_binds(caddy)] == [
        (str(tmp_path / "deploy"), "/etc/caddy")
    ]
    program = str(Path(sys.executable).with_name("caddy"))
    command = [program, "adapt", "--adapter", "caddyfile", "--config", str(ROOT / "deploy" / "Caddyfile")]
    adapted = subprocess.run(command, env=caddy["environment"], capture_output=True, text=True)
    assert adapted.returncode == 0, adapted.stderr
    (server,) = json.loads(adapted.stdout)["apps"]["http"]["servers"].values()
    assert server["routes"][0]["match"] == [{"host": ["farm.example", "other.example"]}]
    assert '"dial": "unix//run/front/web.sock"' in adapted.stdout.replace('":"', '": "')


def test_store_of_the_compose_file_is_set_as_the_private_one(minimal: dict[str, Any], tmp_path: Path):
    def parse(arguments: list[str]) -> dict[str, str]:
        options = " ".join(argument or '""' for argument in arguments).split("--")[1:]
        return dict(option.strip().partition(" ")[::2] for option in options)

    private = parse(build_arguments(tmp_path, tmp_path / "socket", tmp_path / "log"))
    of_this_machine = {"port", "unixsocket", "unixsocketperm", "dir", "logfile"}
    assert parse(minimal["redis"]["command"][1:]) == {
        name: value for name, value in private.items() if name not in of_this_machine
    }
    assert minimal["redis"]["image"].startswith("valkey/valkey:")
    assert minimal["redis"]["volumes"][0]["target"] == "/data"


def test_image_is_slim_unprivileged_and_has_a_health_check():
    assert DOCKERFILE.count("FROM python:3.12-slim") == 2
    assert re.search(r"^USER farm$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    command = yaml.safe_load(COMPOSE)["services"]["web"]["command"]
    assert json.loads(DOCKERFILE.rpartition("CMD ")[2]) == command


def test_front_alone_keeps_callers_files_in_a_volume_that_its_user_may_write(minimal: dict[str, Any]):
    directory = f"{FIXED['FARM_DATA_DIR']}/{FOLDER}"
    mounts = {name: [(mount["type"], mount["target"]) for mount in minimal[name]["volumes"]] for name in minimal}
    assert [name for name, found in mounts.items() if ("volume", directory) in found] == ["web"]
    # A new volume belongs to whom the directory of the image belongs to.
    assert re.search(rf"mkdir -p {directory} .*chown farm:farm [^&]*{directory}$", DOCKERFILE, re.DOTALL | re.MULTILINE)


def test_files_that_the_image_copies_exist_and_are_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match("COPY (?!--from)", line)]
    names = {name for line in copied for name in line}
    assert all((ROOT / name).exists() for name in names)
    assert names == allowed
