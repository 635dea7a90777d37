"""`./farm test`: style, types and import contracts, then every test with coverage; arguments go to pytest instead."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Minimum coverage of lines and branches, in percent; it is only ever raised.
MIN_COVERAGE_PERCENT = 95
#: What runs side by side; the longest first. Coverage is measured in these.
MEASURED_PARTS = (
    ("tests/system",),
    ("tests/unit", "tests/integration"),
)
#: Here it is not: tracing would slow the load down, and cover nothing new.
UNMEASURED_PARTS = (("tests/faults", "tests/bench"),)
CHECKS = (
    ("ruff", "format", "--check", "--quiet", "."),
    ("ruff", "check", "--quiet", "."),
    ("mypy",),
    ("lint-imports", "--no-cache"),
)


def run(*command: str) -> int:
    """Runs a tool of this Python's environment; returns its exit code."""
    tool = Path(sys.executable).with_name(command[0])
    return subprocess.run([str(tool), *command[1:]], cwd=ROOT, check=False).returncode


def run_tests() -> int:
    """Runs all parts at the same time; prints the first one's output as it comes, the others' at the end."""
    tool = str(Path(sys.executable).with_name("coverage"))
    first, *others = (
        *([tool, "run", "-m", "pytest", *part] for part in MEASURED_PARTS),
        *([sys.executable, "-m", "pytest", *part] for part in UNMEASURED_PARTS),
    )
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in others]
        runs = [
            subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            for command, output in zip(others, outputs, strict=True)
        ]
        codes = [subprocess.run(first, cwd=ROOT, check=False).returncode]
        for process, output in zip(runs, outputs, strict=True):
            codes.append(process.wait())
            output.seek(0)
            sys.stdout.write(output.read().decode(errors="replace"))
            sys.stdout.flush()
    return next((code for code in codes if code), 0)


def main() -> int:
    """Runs everything, up to the first check that fails; with arguments, only pytest."""
    if sys.argv[1:]:
        return run("python", "-m", "pytest", *sys.argv[1:])
    for check in CHECKS:
        print(f"farm: {' '.join(check)}", flush=True)
        if run(*check):
            return 1
    run("coverage", "erase")
    os.environ["COVERAGE_CORE"] = "sysmon" if sys.version_info >= (3, 14) else "ctrace"
    if code := run_tests():
        return code
    run("coverage", "combine", "--quiet")
    return run("coverage", "report", f"--fail-under={MIN_COVERAGE_PERCENT}")


if __name__ == "__main__":
    sys.exit(main())
