"""`python -m tests.check_debian_13 [ARGUMENT…]`: the suite on a bare Debian 13, with its Python 3.13 and its Redis 8.

Makes the system in `.debian-13/` (as root, with apt), copies the working tree into it, and runs `./farm test` there
with pytest's arguments; without any, the unit tests, the integration tests on Redis 8, and some of `./farm up`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.debian_root import DebianRoot, is_supported
from tests.environment import ROOT

HOME = ROOT / ".debian-13"
#: Where the working tree is in it.
FOLDER = "farm"
#: Its Redis.
REDIS_SERVER = "/usr/bin/redis-server"
RUNS = (
    ("tests/unit",),
    ("tests/integration", "--ignore=tests/integration/launcher"),
    ("tests/system/test_launcher.py", "-k", "demo or detached"),
)


def copy_working_tree(target: Path) -> None:
    """Copies what git knows or would add; what was built there before, as .venv, stays."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def main() -> int:
    """Returns the first exit code that is not 0."""
    if not is_supported():
        print("this needs root, apt-get and unshare: no Debian 13 can be made here", file=sys.stderr)
        return 2
    root = DebianRoot(HOME)
    root.build()
    copy_working_tree(root.path / FOLDER)
    runs = [tuple(sys.argv[1:])] if sys.argv[1:] else RUNS
    return next((code for code in [run(root, arguments) for arguments in runs] if code), 0)


def run(root: DebianRoot, arguments: tuple[str, ...]) -> int:
    """Runs these tests, those of the integration with its Redis."""
    is_integration = any(argument.startswith("tests/integration") for argument in arguments)
    environment = {"TEST_REDIS_SERVER": REDIS_SERVER} if is_integration else {}
    return root.run("./farm", "test", *arguments, folder=f"/{FOLDER}", **environment)


if __name__ == "__main__":
    sys.exit(main())
