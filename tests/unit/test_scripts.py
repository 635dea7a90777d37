"""What all Lua scripts keep to."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for package in ("shared", "web", "workers") for path in (ROOT / package).rglob("*.lua"))
NEGATED_ARGUMENT = re.compile(r"[,(]\s*-\s*[a-z_]")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_no_argument_is_negated(script: Path):
    """Redis 7.0 gets a negated 0 as `-0`, which it takes for no number: subtract from 0."""
    assert not NEGATED_ARGUMENT.search(script.read_text())
