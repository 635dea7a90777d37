"""Documents, docstrings and comments name only files that exist."""

import re
from pathlib import Path

import pytest

from tests.environment import ROOT

FOLDERS = ("web", "workers", "shared", "launcher", "simulator", "bench", "tests", "docs")
#: Files of a running farm, of an operator or of a library.
NOT_OURS = {"farm.toml"}
FILE_NAME = re.compile(r"(?<![\w.~/-])(?:[\w-]+/)*[\w.-]+\.(?:py|lua|md|toml|yaml|html|lock)\b")


def files() -> set[str]:
    """Every file of the repository, by its path."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(ROOT)) for path in (*paths, *ROOT.glob("*"))}


def texts() -> list[Path]:
    """Documents, and code for its docstrings and comments."""
    code = [path for folder in FOLDERS[:-2] for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".lua")]
    return [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", *code]


def prose(path: Path) -> str:
    """The text of a document, or the docstrings and comments of code."""
    text = path.read_text()
    if path.suffix == ".py":
        return "\n".join(re.findall(r'"""[\s\S]*?"""|#.*', text))
    return "\n".join(re.findall(r"--.*", text)) if path.suffix == ".lua" else text


@pytest.mark.parametrize("text", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_a_text_exist(text):
    existing = files()
    named = set(FILE_NAME.findall(prose(text))) - NOT_OURS
    folder = str(text.parent.relative_to(ROOT))
    missing = {
        name
        for name in named
        if name not in existing
        and f"{folder}/{name}" not in existing
        and not any(path.endswith(f"/{name}") for path in existing)
    }
    assert missing == set()
