"""Installs peers below .bench/ in the repository."""

import shutil
import subprocess
import sys
from pathlib import Path

from bench.simulator import ROOT

INSTALL_FOLDER = ROOT / ".bench"


def install_python_packages(name: str, *packages: str) -> Path:
    """The bin folder of a virtual environment with these packages, created when missing. Raises CalledProcessError."""
    folder = INSTALL_FOLDER / name
    stamp = folder / "packages"
    if not stamp.exists() or stamp.read_text() != " ".join(packages):
        announce_installation(name)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        options = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([str(folder / "bin" / "pip"), "install", *options, *packages], check=True)
        stamp.write_text(" ".join(packages))
    return folder / "bin"


def install_node_packages(name: str, package_json: str) -> Path:
    """The folder with this package.json and its node_modules, created when missing. Raises CalledProcessError."""
    folder = INSTALL_FOLDER / name
    stamp = folder / "package.json"
    if not stamp.exists() or stamp.read_text() != package_json:
        announce_installation(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(package_json)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(npm, cwd=folder, check=True)
    return folder


def announce_installation(name: str) -> None:
    print(f"farm: installing {name} in {INSTALL_FOLDER} (only once)", file=sys.stderr, flush=True)


def find_version(*command: str) -> str:
    """The first line of a program's version output; '' when the program is not installed."""
    if not shutil.which(command[0]):
        return ""
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    return (completed.stdout or completed.stderr).strip().partition("\n")[0]
