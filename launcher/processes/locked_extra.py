"""Installs what only some farms need, by the hashes of a lock file of its own."""

import importlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from launcher.bootstrap import hold_lock, run_command
from shared.errors import FarmError


def read_locked_version(lock_file: Path, package: str) -> str:
    match = re.search(rf"^{package}==(\S+)", lock_file.read_text(), re.MULTILINE)
    return match[1] if match else ""


def find_version(package: str) -> str | None:
    """The version that is installed, None if it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def install(lock_file: Path, what: str, setting: str) -> None:
    """Raises FarmError, which names what could not be installed and the setting that needs it."""
    try:
        with hold_lock():
            run_command(build_install_command(lock_file))
    except (subprocess.CalledProcessError, OSError) as error:
        reason = "see above" if isinstance(error, subprocess.CalledProcessError) else error
        raise FarmError(f"can't install {what} from {lock_file.name} ({reason}): {setting} needs it") from None
    importlib.invalidate_caches()


def build_install_command(lock_file: Path) -> list[str]:
    """With uv, the pip of .venv, or that of the python from which .venv was built without one."""
    options = ["--quiet", "--no-deps", "--require-hashes", "-r", str(lock_file)]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable, *options]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options]
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [str(base), "-m", "pip", "--python", sys.executable, "install", "--disable-pip-version-check", *options]
