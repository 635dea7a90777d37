"""Builds .venv from the lock file when it is missing or stale, then runs the launcher in it; standard library only.

`./farm test` and `./farm bench` need the development lock, all other commands the runtime lock. The development set
contains the runtime set, so a .venv built from it serves both.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP_FILE = VENV / "farm-lock"
RUNTIME_LOCK, DEVELOPMENT_LOCK = "requirements.lock", "requirements-dev.lock"
DEVELOPMENT_COMMANDS = ("test", "bench")


def compute_stamp(lock: str) -> str:
    """Returns the stamp of a .venv built from this lock file by this Python version."""
    content = (ROOT / lock).read_bytes()
    return f"{lock} {hashlib.sha256(content).hexdigest()} {sys.version_info[:2]}"


def is_current(lock: str) -> bool:
    """Whether .venv was built from the present state of this lock file or of the development lock."""
    try:
        stamp = STAMP_FILE.read_text()
    except OSError:
        return False
    return PYTHON.exists() and stamp in (compute_stamp(lock), compute_stamp(DEVELOPMENT_LOCK))


def build_venv(lock: str) -> None:
    """Builds or updates .venv. Raises CalledProcessError."""
    if VENV.is_symlink():
        # `venv --clear` would empty the environment behind the link, and uv would remove what the lock file lacks.
        sys.exit("farm: .venv is a link to an environment that is not from the present lock file; remove the link")
    with contextlib.suppress(BrokenPipeError):
        print(f"farm: setting up .venv from {lock} (this happens once)", file=sys.stderr, flush=True)
    STAMP_FILE.unlink(missing_ok=True)
    uv = shutil.which("uv")
    if uv:
        run_command([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(VENV)])
        run_command([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(PYTHON), str(ROOT / lock)])
    else:
        build_venv_with_pip(lock)
    STAMP_FILE.write_text(compute_stamp(lock))


def build_venv_with_pip(lock: str) -> None:
    """Builds .venv with the standard library's venv and pip; without ensurepip, with the pip of the running python.

    --no-deps: the lock file is complete, and pip's resolver can fail over releases newer than the lock.
    """
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    install = ["install", *options, "-r", str(ROOT / lock)]
    if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
        run_command([sys.executable, "-m", "venv", "--clear", str(VENV)])
        run_command([str(PYTHON), "-m", "pip", *install])
    else:
        run_command([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)])
        run_command([sys.executable, "-m", "pip", "--python", str(PYTHON), *install])


def run_command(command: list[str]) -> None:
    """Runs a command and prints its output only when it fails. Raises CalledProcessError."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        print(result.stdout, file=sys.stderr)
        raise subprocess.CalledProcessError(result.returncode, command)


def ensure_venv(lock: str) -> None:
    """Builds .venv unless it is current; a file lock keeps concurrent launchers from building at the same time."""
    if is_current(lock):
        return
    with hold_lock():
        if not is_current(lock):
            build_venv(lock)


@contextlib.contextmanager
def hold_lock() -> Iterator[None]:
    """Only one process at a time changes .venv."""
    with (ROOT / ".venv.lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield


def open_closed_streams() -> None:
    """Connects standard streams that are closed (`>&-`) to /dev/null, or else the next file or socket becomes one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It gets the lowest file descriptor that is free, which is the stream's.
            fd = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def main() -> None:
    """Ensures .venv, then replaces this process with `python -m launcher`."""
    open_closed_streams()
    try:
        ensure_venv(DEVELOPMENT_LOCK if sys.argv[1:2] and sys.argv[1] in DEVELOPMENT_COMMANDS else RUNTIME_LOCK)
    except (subprocess.CalledProcessError, OSError) as error:
        reason = " ".join(error.cmd[:4]) if isinstance(error, subprocess.CalledProcessError) else str(error)
        print(f"farm: the set-up failed ({reason}); install python3-venv and python3-pip, or uv", file=sys.stderr)
        sys.exit(1)
    environment = {
        **os.environ,
        "CALLED_FROM": str(Path.cwd()),
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(VENV),
    }
    os.chdir(ROOT)
    os.execve(PYTHON, [str(PYTHON), "-m", "launcher", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
