"""Real clients work: OpenAI's SDKs, and programs that people point at a farm (docs/clients.md)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.responses import translate
from tests.environment import ROOT
from tests.system.clients.installation import HERE, Installation, find_program
from tests.system.farm import KEY, Farm


def run(*command: str, timeout: float = 400, **options) -> str:
    result = subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=timeout, **options
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def run_python(programs: Path, *arguments: str, **settings: str) -> str:
    """Runs Python with the installed programs and the repository on its path."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{programs}{os.pathsep}{ROOT}", **settings}
    return run(sys.executable, *arguments, env=environment)


def run_node(program: str, farm: Farm, installation: Installation, key: str = KEY) -> str:
    node, _ = find_program("node"), find_program("npm")
    return run(node, program, f"{farm.url}/v1", key, cwd=installation.find_node_directory())


@pytest.fixture
def limited_key(farm: Farm) -> str:
    """A key for five requests at once: what a program starts beyond them waits, so it needs no retry."""
    return str(farm.admin("POST", "/keys", json={"name": "programs", "concurrency": 5}).json()["key"])


def test_python_sdk_works_plain_streamed_and_with_200_concurrent_calls(farm: Farm):
    farm.upstream.pace(delay=0.02)
    script = str(HERE / "python_sdk.py")
    assert (
        run(sys.executable, script, f"{farm.url}/v1", KEY, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        == "ok\n"
    )
    assert farm.upstream.counters()["collisions"] == 0


@pytest.mark.parametrize("program", ["openai_sdk.mjs", "ai_sdk.mjs", "langchain.mjs"])
def test_node_program_works_plain_streamed_and_with_concurrent_calls(
    farm: Farm, installation: Installation, limited_key: str, program: str
):
    assert run_node(program, farm, installation, limited_key) == "ok\n"
    assert farm.upstream.counters()["collisions"] == 0


def test_node_programs_see_an_error_where_a_stream_breaks_off(farm: Farm, installation: Installation):
    farm.upstream.faults(cut=1)
    assert run_node("cut_streams.mjs", farm, installation) == "ok\n"


def test_pydantic_ai_works_plain_streamed_structured_and_with_concurrent_runs(
    farm: Farm, installation: Installation, limited_key: str
):
    programs = installation.find_python_programs()
    assert run_python(programs, str(HERE / "pydantic_ai_agent.py"), f"{farm.url}/v1", limited_key) == "ok\n"
    assert farm.upstream.counters()["collisions"] == 0


def test_llm_streams_from_a_model_of_its_configuration_file(farm: Farm, installation: Installation, tmp_path: Path):
    programs = installation.find_python_programs()
    model = {"model_id": "farm", "model_name": "sim-translate", "api_base": f"{farm.url}/v1", "api_key_name": "farm"}
    lines = [f"{name}: {value}" for name, value in model.items()]
    (tmp_path / "extra-openai-models.yaml").write_text("- " + "\n  ".join(lines))
    command = ("-m", "llm", "--model", "farm", "--key", KEY, "Hello there")
    assert run_python(programs, *command, LLM_USER_PATH=str(tmp_path)) == "Uryyb gurer\n"


def test_office_translate_translates_a_document_with_requests_side_by_side(
    farm: Farm, installation: Installation, tmp_path: Path
):
    programs = installation.find_python_programs()
    farm.upstream.pace(delay=0.05)
    paragraphs = (HERE / "book.txt").read_text().splitlines()
    document, translated = tmp_path / "book.md", tmp_path / "translated.md"
    document.write_text("\n\n".join(paragraphs))
    run_python(
        programs,
        *("-m", "office_translate.cli", str(document), "--to", "fr", "--output", str(translated), "--api-key", KEY),
        *("--base-url", f"{farm.url}/v1", "--model", "sim-translate", "--batch-size", "1", "--concurrency", "8"),
    )
    # The program wraps each paragraph in a tag, which the simulator translates like any text.
    assert translated.read_text().strip().split("\n\n") == [translate(f'<s id="0">{text}</s>') for text in paragraphs]
    assert farm.upstream.counters()["collisions"] == 0


def test_book_that_is_translated_again_asks_the_upstream_nothing(
    farm: Farm, installation: Installation, tmp_path: Path
):
    programs = installation.find_python_programs()
    key = farm.admin("POST", "/keys", json={"name": "cache", "cache_ttl": 600}).json()["key"]
    paragraphs = (HERE / "book.txt").read_text().splitlines()
    document = tmp_path / "book.md"
    document.write_text("\n\n".join(paragraphs))
    served, translations = [], []
    for number in range(2):
        translated = tmp_path / f"translated-{number}.md"
        run_python(
            programs,
            *("-m", "office_translate.cli", str(document), "--to", "fr", "--output", str(translated), "--api-key", key),
            *("--base-url", f"{farm.url}/v1", "--model", "sim-translate", "--batch-size", "1", "--concurrency", "8"),
        )
        served.append(farm.upstream.counters()["served"])
        translations.append(translated.read_text())
    assert translations[0] == translations[1]
    assert served[0] == served[1] > 0
