"""`./farm test`: style, types, import contracts, and every test, most with coverage; arguments go to pytest instead."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Minimum coverage of lines and branches, in percent; it is only ever raised.
MIN_COVERAGE_PERCENT = 95
#: Commands that run at the same time. They wait a third of their time, so that three fill two cores; with more of them,
#: tests of what happens within seconds would wait for the CPU.
CONCURRENT_COMMANDS = 3
STYLE_CHECKS = (("ruff", "format", "--check", "--quiet", "."), ("ruff", "check", "--quiet", "."))
#: System tests that share no farm with others, by what they have in common.
COMMANDS = ("tests/system/test_launcher.py",)
STORES = tuple(f"tests/system/test_{name}.py" for name in ("backup", "redis_over_tls", "refused_starts"))
RELOADS = tuple(f"tests/system/test_{name}.py" for name in ("reload", "credential_kinds", "pools", "https_upstream"))
DOCUMENT = "tests/system/test_admin_document.py"
LAUNCHER = ("tests/unit/launcher", "tests/integration/launcher")
WEB, WORKERS = "tests/integration/web", "tests/integration/workers"
#: Tests that reach hardly a line that no other test does; with coverage they would take twice the time.
UNMEASURED = (
    *(
        f"{WORKERS}/jobs/test_{name}.py"
        for name in ("fair_queueing", "held_requests", "model_rests", "random_model_rests", "retries")
    ),
    *(f"{WEB}/admin/test_{name}.py" for name in ("login_records", "permissions", "same_origin", "sessions")),
    *(f"{WEB}/access/test_{name}.py" for name in ("authenticator", "metrics_token")),
    *(f"{WEB}/server/test_{name}.py" for name in ("admin_networks", "half_closed")),
    *(f"{WEB}/{name}.py" for name in ("console/test_cost", "routes/test_metrics", "routes/test_models", "test_paths")),
    "tests/unit/web/request/test_large_json.py",
)
#: Tests of the Lua scripts of jobs, limits, batches, files and kept answers, and of the rights: once more on the Redis
#: of the system, where there is one.
SYSTEM_REDIS = (
    *(f"{WORKERS}/jobs", "tests/integration/shared/api_keys"),
    "tests/integration/shared/redis_connection/test_rights.py",
    *("tests/integration/shared/batches", "tests/integration/shared/files/test_file_store.py"),
    f"{WEB}/replay/test_answer_store.py",
)


#: Held while a command's output is printed.
PRINTING = threading.Lock()


@dataclass(frozen=True)
class Command:
    """One of the commands that run side by side."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> int:
        """Prints the output when it has ended, and what it cost, without detached processes; returns its exit code."""
        print(f"farm: {' '.join(self.arguments)}", flush=True)
        tool = str(Path(sys.executable).with_name(self.arguments[0]))
        started = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [tool, *self.arguments[1:]],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read().decode(errors="replace")
        took, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
        with PRINTING:
            print(f"{text}farm: {took:.0f} s, {cpu:.0f} s of CPU: {' '.join(self.arguments)}", flush=True)
        return process.returncode


def measure(*arguments: str) -> Command:
    """A run of pytest that counts for coverage."""
    return Command(("coverage", "run", "-m", "pytest", *arguments))


def test(*arguments: str, **environment: str) -> Command:
    """A run of pytest without coverage: it makes farms take twice the CPU, and finds little that others miss."""
    return Command(("python", "-m", "pytest", *arguments), environment)


def ignore(paths: Iterable[str]) -> Iterator[str]:
    """pytest's options that leave these paths out."""
    return (f"--ignore={path}" for path in paths)


def list_commands() -> list[Command]:
    """What runs side by side. Each begins when an earlier one has ended, so the longest come first."""
    others = (*COMMANDS, *STORES, *RELOADS, DOCUMENT)
    commands = [
        Command(("mypy",)),
        test("tests/system", *ignore(others)),
        test("tests/faults"),
        measure(WORKERS, *ignore(UNMEASURED)),
        measure(WEB, *ignore(UNMEASURED)),
        measure(*COMMANDS),
        measure("tests/unit", *ignore((*LAUNCHER, *UNMEASURED))),
        test("tests/bench"),
        measure(*RELOADS),
        test(*STORES),
        test(DOCUMENT),
        test("tests/browser"),
        measure("tests/integration", *ignore((WORKERS, WEB, *LAUNCHER))),
        measure(*LAUNCHER),
        test(*UNMEASURED),
        Command(("lint-imports", "--no-cache")),
    ]
    server = find_system_redis()
    return [*commands, test(*SYSTEM_REDIS, TEST_REDIS_SERVER=server)] if server else commands


def find_system_redis() -> str:
    """Path of the system's redis-server; '' where there is none, which CI, with its packages, does not accept."""
    server = shutil.which("redis-server") or ""
    if not server and os.environ.get("CI"):
        raise FileNotFoundError("redis-server is not installed")
    return server


def run(*command: str) -> int:
    """Runs a tool of this Python's environment; returns its exit code."""
    tool = Path(sys.executable).with_name(command[0])
    return subprocess.run([str(tool), *command[1:]], cwd=ROOT, check=False).returncode


def main() -> int:
    """Runs everything, unless the style is wrong; with arguments, only pytest. Returns the first exit code but 0."""
    if sys.argv[1:]:
        return run("python", "-m", "pytest", *sys.argv[1:])
    if code := next(filter(None, (run(*check) for check in STYLE_CHECKS)), 0):
        return code
    run("coverage", "erase")
    os.environ["COVERAGE_CORE"] = "sysmon" if sys.version_info >= (3, 14) else "ctrace"
    with ThreadPoolExecutor(CONCURRENT_COMMANDS) as pool:
        codes = list(pool.map(Command.run, list_commands()))
    if code := next(filter(None, codes), 0):
        return code
    run("coverage", "combine", "--quiet")
    return run("coverage", "report", f"--fail-under={MIN_COVERAGE_PERCENT}")


if __name__ == "__main__":
    sys.exit(main())
