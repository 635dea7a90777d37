"""The container files fit the code, as far as it shows without a Docker engine."""

import json
import re

import compose_spec
import yaml
from honcho.environ import parse_procfile

from shared.settings.loading import env_names
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
    assert {name: " ".join(SERVICES[name]["command"]) for name in PROCFILE} == dict(PROCFILE)


def test_compose_file_sets_only_existing_settings():
    configured = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert configured - set(env_names()) == set()


def test_only_the_workers_have_the_secret_key():
    assert "FARM_SECRET_KEY" in SERVICES["worker"]["environment"]
    assert "FARM_SECRET_KEY" not in SERVICES["web"]["environment"]


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
