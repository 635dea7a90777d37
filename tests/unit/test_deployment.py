"""What can be said of the container files without a Docker engine at hand."""

import json
import re
from pathlib import Path

import compose_spec
import yaml
from honcho.environ import parse_procfile

from shared.settings.loading import env_names

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "docker-compose.yaml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROCFILE = parse_procfile((ROOT / "Procfile").read_text()).processes


def test_the_compose_file_keeps_the_compose_specification():
    filled = re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda found: found[1] or "", COMPOSE)
    merged = yaml.safe_dump({k: v for k, v in yaml.safe_load(filled).items() if not k.startswith("x-")})
    compose = compose_spec.PyCompose.from_yaml(merged)
    compose.validate()
    assert sorted(compose.service_names()) == ["redis", "web", "worker"]


def test_it_runs_what_the_procfile_runs():
    assert {name: " ".join(SERVICES[name]["command"]) for name in PROCFILE} == dict(PROCFILE)


def test_it_sets_no_setting_that_does_not_exist():
    given = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert given - set(env_names()) == set()


def test_only_the_workers_have_the_key_that_opens_tokens():
    assert "FARM_SECRET_KEY" in SERVICES["worker"]["environment"]
    assert "FARM_SECRET_KEY" not in SERVICES["web"]["environment"]


def test_workers_can_be_scaled_because_nothing_of_theirs_is_one_of_a_kind():
    assert not {"container_name", "ports", "volumes"} & set(SERVICES["worker"])


def test_redis_keeps_what_it_was_given():
    assert SERVICES["redis"]["command"][1:3] == ["--appendonly", "yes"]
    assert SERVICES["redis"]["volumes"]


def test_the_image_is_small_not_roots_and_watched():
    assert DOCKERFILE.count("FROM python:3.12-slim") == 2
    assert re.search(r"^USER farm$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert json.loads(DOCKERFILE.rpartition("CMD ")[2]) == SERVICES["web"]["command"]


def test_everything_that_the_image_copies_is_there_and_let_through():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match("COPY (?!--from)", line)]
    names = {name for line in copied for name in line}
    assert all((ROOT / name).exists() for name in names)
    assert names == allowed
