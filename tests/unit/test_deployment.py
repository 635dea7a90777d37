"""The container files fit the code, as far as it shows without a Docker engine."""

import json
import re

import compose_spec
import yaml
from honcho.environ import parse_procfile

from shared.settings.loading import env_names
from shared.settings.schema import PoolSettings, Settings, setting_fields
from tests.environment import ROOT

COMPOSE = (ROOT / "docker-compose.yaml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROCFILE = parse_procfile((ROOT / "Procfile").read_text()).processes


def test_compose_file_follows_the_compose_specification():
    filled = re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda match: match[1] or "", COMPOSE)
    merged = yaml.safe_dump({k: v for k, v in yaml.safe_load(filled).items() if not k.startswith("x-")})
    compose = compose_spec.PyCompose.from_yaml(merged)
    compose.validate()
    assert sorted(compose.service_names()) == ["redis", "web", "worker"]


def test_compose_file_runs_the_commands_of_the_procfile():
    commands = {name: re.sub(r"^env( -u \w+)+ ", "", command) for name, command in PROCFILE.items()}
    assert {name: " ".join(SERVICES[name]["command"]) for name in PROCFILE} == commands


def test_processes_of_the_procfile_get_only_their_own_secrets():
    withheld = {name: set(re.findall(r"-u (\w+)", command)) for name, command in PROCFILE.items()}
    assert withheld == {
        "web": {"FARM_SECRET_KEY", "FARM_CLIENT_SECRET"},
        "worker": {"FARM_ADMIN_TOKEN", "FARM_API_KEY"},
    }


def test_compose_file_sets_only_existing_settings():
    configured = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert configured - set(env_names()) == set()


def test_every_setting_reaches_a_service():
    # The image sets the address and the directory, its port is published; files have to be mounted.
    fixed = {"HOST", "PORT", "FARM_DATA_DIR", "FARM_CONFIG"}
    only_of_the_launcher = {"FARM_SIMULATOR"}
    reaching = {
        name
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if f"${{{name}:" in value or name == "REDIS_URL"
    }
    assert set(env_names()) - reaching == fixed | only_of_the_launcher


def test_each_side_gets_only_its_own_secrets():
    all_settings = [*setting_fields(Settings).values(), *setting_fields(PoolSettings).values()]
    secret = {setting.metadata["env"] for setting in all_settings if setting.metadata["secret"]}
    held = {name: secret & set(SERVICES[name]["environment"]) for name in ("web", "worker")}
    assert held["web"] == {"REDIS_URL", "FARM_ADMIN_TOKEN", "FARM_METRICS_TOKEN", "FARM_API_KEY"}
    assert not held["worker"] & {"FARM_ADMIN_TOKEN", "FARM_METRICS_TOKEN", "FARM_API_KEY"}
    assert "FARM_REFRESH_TOKENS_FILE" not in SERVICES["web"]["environment"]


def test_containers_get_the_time_that_requests_get():
    grace = re.fullmatch(r"\$\{STOP_GRACE_PERIOD:-(\d+)s\}", SERVICES["worker"]["stop_grace_period"])
    assert grace and int(grace[1]) >= Settings.drain + 60
    assert SERVICES["web"]["stop_grace_period"] == SERVICES["worker"]["stop_grace_period"]


def test_worker_service_can_be_scaled():
    assert not {"container_name", "ports", "volumes"} & set(SERVICES["worker"])


def test_redis_service_persists_its_data():
    assert SERVICES["redis"]["command"][1:3] == ["--appendonly", "yes"]
    assert SERVICES["redis"]["volumes"]


def test_image_is_slim_unprivileged_and_has_a_health_check():
    assert DOCKERFILE.count("FROM python:3.12-slim") == 2
    assert re.search(r"^USER farm$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert json.loads(DOCKERFILE.rpartition("CMD ")[2]) == SERVICES["web"]["command"]


def test_files_that_the_image_copies_exist_and_are_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match("COPY (?!--from)", line)]
    names = {name for line in copied for name in line}
    assert all((ROOT / name).exists() for name in names)
    assert names == allowed
