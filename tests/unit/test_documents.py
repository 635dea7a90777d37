"""Documents, docstrings and comments name only files that exist."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.environment import ROOT

FOLDERS = ("web", "workers", "shared", "launcher", "simulator", "bench", "tests", "docs")
#: Files of operators and of other programs, and one that every package has.
NOT_OURS = {"farm.toml", "extra-openai-models.yaml", "__init__.py"}
FILE_NAME = re.compile(r"(?<![\w.~/-])(?:[\w-]+/)*[\w.-]+\.(?:py|lua|md|toml|yaml|html|lock)\b")


@cache
def list_files() -> frozenset[str]:
    """Every file of the repository, by its path."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    ours = [path for path in (*paths, *ROOT.glob("*")) if "node_modules" not in path.parts]
    return frozenset(str(path.relative_to(ROOT)) for path in ours)


def texts() -> list[Path]:
    """What people read: documents, and code with its docstrings and comments."""
    code = [path for folder in FOLDERS[:-2] for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".lua")]
    return [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *code]


def prose(path: Path) -> str:
    """The text of a document; of code its docstrings and comments."""
    text = path.read_text()
    if path.suffix == ".py":
        return "\n".join(re.findall(r'"""[\s\S]*?"""|#.*', text))
    return "\n".join(re.findall(r"--.*", text)) if path.suffix == ".lua" else text


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_a_text_exist_and_are_unambiguous(path):
    known = list_files()
    beside = str(path.parent.relative_to(ROOT))
    for name in set(FILE_NAME.findall(prose(path))) - NOT_OURS:
        if name not in known and f"{beside}/{name}" not in known:
            assert len([file for file in known if file.endswith(f"/{name}")]) == 1, name


def test_common_changes_name_what_is_defined_there():
    table = re.findall(
        r"^\| .* \| `([\w/]+\.py)`, `(\w+)` \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE
    )
    assert len(table) >= 5
    for path, name in table:
        assert re.search(rf"^(?:def |class )?{name}\b", (ROOT / path).read_text(), re.MULTILINE), (path, name)
