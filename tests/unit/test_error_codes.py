"""docs/errors.md lists every code that a caller can get."""

import ast
import re
from functools import cache

from tests.environment import ROOT

#: OpenAI's error types, which are passed beside the codes.
TYPES = {"server_error", "rate_limit_error", "invalid_request_error"}
#: Functions and classes that take an error code.
ERROR_BUILDERS = {"ApiError", "Failure", "build_failure", "_fail", "overloaded_error", "unauthorized_error"}


@cache
def codes() -> set[str]:
    """Literals that look like a code, in calls that build an error."""
    literals = set()
    for folder in ("web", "workers", "shared"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and getattr(node.func, "id", getattr(node.func, "attr", "")) in ERROR_BUILDERS
                ):
                    position = 0 if getattr(node.func, "id", "") == "overloaded_error" else slice(1, 4)
                    arguments = node.args[position] if isinstance(position, slice) else [node.args[position]]
                    constants = [argument.value for argument in arguments if isinstance(argument, ast.Constant)]
                    literals |= {value for value in constants if isinstance(value, str)}
    return {literal for literal in literals if re.fullmatch(r"[a-z]+(_[a-z]+)+", literal)} - TYPES


def test_every_error_code_is_documented():
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "errors.md").read_text()))
    assert {"queue_full", "upstream_eof", "no_credentials"} <= codes()
    assert codes() - documented == set()
