"""`./farm test`: style, types and import contracts, then every test with coverage; arguments go to pytest instead."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Least share of lines and branches that the tests must reach, in percent; it only goes up.
LEAST_COVERAGE = 95
CHECKS = (
    ("ruff", "format", "--check", "--quiet", "."),
    ("ruff", "check", "--quiet", "."),
    ("mypy",),
    ("lint-imports", "--no-cache"),
)


def run(*command: str) -> int:
    """Runs a tool of this python's environment."""
    tool = Path(sys.executable).with_name(command[0])
    return subprocess.run([str(tool), *command[1:]], cwd=ROOT, check=False).returncode


def main() -> int:
    """Everything when called without arguments; stops at the first check that fails."""
    if sys.argv[1:]:
        return run("python", "-m", "pytest", *sys.argv[1:])
    for check in CHECKS:
        print(f"farm: {' '.join(check)}", flush=True)
        if run(*check):
            return 1
    run("coverage", "erase")
    os.environ["COVERAGE_CORE"] = "sysmon" if sys.version_info >= (3, 14) else "ctrace"
    if code := run("coverage", "run", "-m", "pytest"):
        return code
    run("coverage", "combine", "--quiet")
    return run("coverage", "report", f"--fail-under={LEAST_COVERAGE}")


if __name__ == "__main__":
    sys.exit(main())
