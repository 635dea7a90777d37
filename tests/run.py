"""`./farm test`: style, types and import contracts, then every test with coverage; arguments go to pytest instead."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Least share of lines and branches that the tests must reach, in percent; it only goes up.
LEAST_COVERAGE = 95
#: What is run side by side: about as long as each other.
ELSEWHERE = ("tests/system/test_launcher.py",)
HALVES = (
    ("tests/system", *(f"--ignore={one}" for one in ELSEWHERE)),
    ("tests/unit", "tests/integration", "tests/faults", "tests/bench", *ELSEWHERE),
)
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


def run_halves() -> int:
    """Every test, in two runs side by side, since most of the time is waiting; the second's output comes at its end."""
    tool = str(Path(sys.executable).with_name("coverage"))
    first, second = ([tool, "run", "-m", "pytest", *half] for half in HALVES)
    with tempfile.TemporaryFile() as output:
        beside = subprocess.Popen(second, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        code = subprocess.run(first, cwd=ROOT, check=False).returncode
        other = beside.wait()
        output.seek(0)
        sys.stdout.write(output.read().decode(errors="replace"))
        sys.stdout.flush()
    return code or other


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
    if code := run_halves():
        return code
    run("coverage", "combine", "--quiet")
    return run("coverage", "report", f"--fail-under={LEAST_COVERAGE}")


if __name__ == "__main__":
    sys.exit(main())
