"""A root directory of Debian 13 (Python 3.13, Redis 8) in which commands run; needs root and apt.

Packages are unpacked and not configured, which takes seconds: what their scripts would have set up is not needed here.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: The base system, and what the README and the tests ask for.
PACKAGES = (
    *("?essential", "ca-certificates", "curl", "git", "iproute2", "procps"),
    *("python3", "python3-venv", "redis-server", "libstdc++6"),
)
#: Files of the host that hold for the root too: names, users, and the certificates that a package's script collects.
HOST_FILES = (
    *("etc/resolv.conf", "etc/hosts", "etc/nsswitch.conf", "etc/passwd", "etc/group", "etc/pip.conf"),
    "etc/ssl/certs/ca-certificates.crt",
)
#: Variables of the host that hold for the root too.
HOST_VARIABLES = ("CI", "PIP_CERT", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "HTTPS_PROXY", "https_proxy")
MERGED_FOLDERS = ("bin", "sbin", "lib", "lib64")
#: Mounts devices and processes in a namespace of its own, then runs the command in the root. The shell stays, as the
#: first process of the namespace, which has to reap the orphans.
ENTER = 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" || exit; cd "$0"; chroot "$0" "$@"; exit $?'
APT_SETTINGS = """
Dir::State "{home}/state";
Dir::State::status "{home}/state/status";
Dir::Cache "{home}/cache";
Dir::Etc::sourcelist "{home}/sources.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
"""


class DebianRoot:
    """The root directory, its home for apt's files beside it."""

    def __init__(self, home: Path) -> None:
        self._home = home.resolve()
        self.path = self._home / "root"

    def build(self) -> None:
        """Builds it, unless it is there. Raises CalledProcessError with what apt says."""
        if (self._home / "complete").exists():
            return
        shutil.rmtree(self._home, ignore_errors=True)
        for package in self._download():
            self._unpack(package)
        for name in ("dev", "proc", "sys", "tmp", "root"):
            (self.path / name).mkdir(exist_ok=True)
        (self.path / "tmp").chmod(0o1777)
        for name in HOST_FILES:
            copy(Path("/") / name, self.path / name)
        (self._home / "complete").touch()

    def run(self, *command: str, folder: str = "/", **environment: str) -> int:
        """Runs a command in it with a new user's environment; returns its exit code."""
        kept = {name: os.environ[name] for name in HOST_VARIABLES if name in os.environ}
        settings = [f"{name}={value}" for name, value in {**kept, **environment}.items()]
        new_user = ["env", "-i", "-C", folder, "HOME=/root", "PATH=/usr/bin:/usr/sbin", *settings]
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, str(self.path)]
        return subprocess.run([*enter, *new_user, *command], check=False).returncode

    def _download(self) -> Sequence[Path]:
        """Downloads the packages and all that they need, in the order of their names."""
        archives = self._home / "cache" / "archives"
        for folder in (self._home / "state" / "lists" / "partial", archives / "partial"):
            folder.mkdir(parents=True)
        (self._home / "state" / "status").touch()
        source = f"deb [signed-by={KEYRING}] {find_mirror()} {SUITE} main\n"
        (self._home / "sources.list").write_text(source)
        settings = self._home / "apt.conf"
        settings.write_text(APT_SETTINGS.format(home=self._home))
        environment = {**os.environ, "APT_CONFIG": str(settings), "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-qq", "-y", "--download-only", *PACKAGES]):
            subprocess.run(["apt-get", *command], env=environment, check=True, stdout=subprocess.DEVNULL)
        return sorted(archives.glob("*.deb"))

    def _unpack(self, package: Path) -> None:
        """Links of the merged /usr come first, as its installer makes them."""
        for name in MERGED_FOLDERS:
            (self.path / "usr" / name).mkdir(parents=True, exist_ok=True)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"usr/{name}")
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as archive:
            command = ["tar", "--extract", "--keep-directory-symlink", "--directory", str(self.path)]
            subprocess.run(command, stdin=archive.stdout, check=True)


def find_mirror() -> str:
    """The address that the host's apt takes Debian from."""
    urls = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Origin: Debian", "Label: Debian"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    return urls[0] if urls else "http://deb.debian.org/debian"


def copy(source: Path, target: Path) -> None:
    """Copies a file or folder, if there is one, in place of what is there."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy(source, target)


def is_supported() -> bool:
    """Whether this machine can build one."""
    return os.geteuid() == 0 and all(map(shutil.which, ("apt-get", "dpkg-deb", "unshare", "chroot")))
