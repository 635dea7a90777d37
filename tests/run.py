"""`./farm test`: style, types and import contracts, then every test with coverage; arguments go to pytest instead."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
#: Minimum coverage of lines and branches, in percent; it is only ever raised.
MIN_COVERAGE_PERCENT = 95
#: System tests that share no farm with others, and one that fuzzes the admin API.
OWN_FARMS = tuple(f"tests/system/test_{name}.py" for name in ("backup", "launcher", "redis_over_tls"))
RELOADS = tuple(f"tests/system/test_{name}.py" for name in ("https_upstream", "pools", "reload"))
DOCUMENT = "tests/system/test_admin_document.py"
LAUNCHER = ("tests/unit/launcher", "tests/integration/launcher")
FAULTS, BENCH, BROWSER = ("tests/faults",), ("tests/bench",), ("tests/browser",)
#: Tests of the Lua scripts of jobs and limits, and of the rights: once more on the system's Redis, where there is one.
SYSTEM_REDIS = (
    *("tests/integration/workers/jobs", "tests/integration/shared/api_keys"),
    "tests/integration/shared/redis_connection/test_rights.py",
)
#: What runs side by side: pytest's arguments, one run after the other in each lane; about as long as each other.
LANES = (
    (("tests/system", *(f"--ignore={path}" for path in (*OWN_FARMS, *RELOADS, DOCUMENT))), (DOCUMENT,), RELOADS, BENCH),
    (("tests/unit", "tests/integration", *(f"--ignore={path}" for path in LAUNCHER)),),
    (FAULTS, LAUNCHER, OWN_FARMS, BROWSER, SYSTEM_REDIS),
)
#: Coverage is not measured here: tracing slows the load down, and would find nothing that other tests don't cover.
UNMEASURED = (FAULTS, BENCH, BROWSER, (DOCUMENT,), SYSTEM_REDIS)
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
    """Runs all lanes at the same time; prints the first one's output as it comes, the others' at the end."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(LANES)) as pool:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in LANES[1:]]
        codes = [pool.submit(run_lane, lane, output) for lane, output in zip(LANES, (None, *outputs), strict=True)]
        for code, output in zip(codes[1:], outputs, strict=True):
            code.result()
            output.seek(0)
            sys.stdout.write(output.read().decode(errors="replace"))
            sys.stdout.flush()
        return next((code.result() for code in codes if code.result()), 0)


def run_lane(lane: tuple[tuple[str, ...], ...], output: IO[bytes] | None) -> int:
    """Runs pytest with each of these arguments; returns the first exit code that is not 0, or 0."""
    coverage = str(Path(sys.executable).with_name("coverage"))
    codes = []
    for arguments in lane:
        tool = (sys.executable,) if arguments in UNMEASURED else (coverage, "run")
        command, environment = [*tool, "-m", "pytest", *arguments], dict(os.environ)
        if arguments == SYSTEM_REDIS:
            if not (server := find_system_redis()):
                continue
            environment["TEST_REDIS_SERVER"] = server
        result = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False)
        codes.append(result.returncode)
    return next((code for code in codes if code), 0)


def find_system_redis() -> str:
    """Path of the system's redis-server; '' where there is none, which CI, with its packages, does not accept."""
    server = shutil.which("redis-server") or ""
    if not server and os.environ.get("CI"):
        raise FileNotFoundError("redis-server is not installed")
    return server


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
