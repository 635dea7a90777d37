"""`python -m tests.check_wheels`: every package of the lock files has a wheel for each Python and platform; needs uv.

It asks the package index and installs nothing. A package without a wheel would be compiled by whoever starts the farm.
"""

import itertools
import shutil
import subprocess
import sys
import tempfile

from tests.environment import ROOT

LOCK_FILES = ("requirements.lock", "requirements-s3.lock", "requirements-dev.lock")
PYTHON_VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
#: gevent has no wheel for it.
KNOWN_GAPS = (("3.11", "aarch64-apple-darwin"),)


def check(uv: str, lock_file: str, python_version: str, platform: str) -> str:
    """Has uv choose wheels by their hashes; returns why it can't, '' when it can."""
    with tempfile.TemporaryDirectory() as target:
        command = [
            *(uv, "pip", "install", "--dry-run", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
            *("--python-version", python_version, "--python-platform", platform, "--target", target),
            *("-r", str(ROOT / lock_file)),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stderr.strip() if result.returncode else ""


def list_targets() -> list[tuple[str, str, str]]:
    """Lock file, Python version and platform of each check."""
    targets = itertools.product(LOCK_FILES, PYTHON_VERSIONS, PLATFORMS)
    return [target for target in targets if target[1:] not in KNOWN_GAPS]


def main() -> int:
    uv = shutil.which("uv")
    if not uv:
        print("uv is not on PATH: pip install uv", file=sys.stderr)
        return 2
    failed = False
    for lock_file, python_version, platform in list_targets():
        failure = check(uv, lock_file, python_version, platform)
        failed = failed or bool(failure)
        print(f"{lock_file} python {python_version} {platform}: {failure or 'wheels for all'}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
