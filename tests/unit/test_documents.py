"""Documents, docstrings and comments name only files that exist."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDERS = ("web", "workers", "shared", "launcher", "simulator", "bench", "tests", "docs")
#: Files that a running farm, an operator or a library has.
NOT_OURS = {"farm.toml"}
FILE_NAME = re.compile(r"(?<![\w.~/-])(?:[\w-]+/)*[\w.-]+\.(?:py|lua|md|toml|yaml|html|lock)\b")


def files() -> set[str]:
    """Every file of the repository, by its path."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(ROOT)) for path in (*found, *ROOT.glob("*"))}


def texts() -> list[Path]:
    """What people read: documents, and code with its docstrings and comments."""
    code = [path for folder in FOLDERS[:-2] for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".lua")]
    return [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", *code]


def prose(path: Path) -> str:
    """The text of a document; of code its docstrings and comments."""
    text = path.read_text()
    if path.suffix == ".py":
        return "\n".join(re.findall(r'"""[\s\S]*?"""|#.*', text))
    return "\n".join(re.findall(r"--.*", text)) if path.suffix == ".lua" else text


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_text_names_exists(path):
    known = files()
    named = set(FILE_NAME.findall(prose(path))) - NOT_OURS
    beside = str(path.parent.relative_to(ROOT))
    missing = {
        name
        for name in named
        if name not in known and f"{beside}/{name}" not in known and not any(one.endswith(f"/{name}") for one in known)
    }
    assert missing == set()
