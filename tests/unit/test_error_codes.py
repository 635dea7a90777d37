"""docs/errors.md lists every code that a caller can get."""

import ast
import re

from tests.conftest import ROOT

#: OpenAI's classes of errors, which stand beside the codes.
TYPES = {"server_error", "rate_limit_error", "invalid_request_error"}
MAKERS = {"ApiError", "Failure", "build_failure", "_fail", "overloaded_error", "unauthorized_error"}


def codes() -> set[str]:
    """Literals that look like a code, in calls that make an error."""
    found = set()
    for folder in ("web", "workers", "shared"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in MAKERS:
                    at = 0 if getattr(node.func, "id", "") == "overloaded_error" else slice(1, 4)
                    given = node.args[at] if isinstance(at, slice) else [node.args[at]]
                    found |= {
                        one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)
                    }
    return {one for one in found if re.fullmatch(r"[a-z]+(_[a-z]+)+", one)} - TYPES


def test_every_code_is_documented():
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "errors.md").read_text()))
    assert {"queue_full", "upstream_eof", "no_credentials"} <= codes()
    assert codes() - documented == set()
