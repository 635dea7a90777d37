"""Parts as files in a directory: `<directory>/<file id>/<number>`."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from shared.files.part_store import FileStoreDown, FileStoreFull, PartNotFound, StoredPart

#: Errors that mean there is no room: on the disk, by a quota, by a limit of this process.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DirectoryStore:
    """Blocks; ThreadedStore keeps that from an event loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, data: bytes) -> None:
        """Writes beside the part and renames, so that even after a power cut a part is there whole or not at all."""
        path = self._directory / name
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with map_errors():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                write_durably(temporary, data)
                temporary.rename(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
            sync_directory(path.parent)
            sync_directory(self._directory)

    def get(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        with map_errors():
            try:
                part = (self._directory / name).open("rb")
            except FileNotFoundError:
                raise PartNotFound(name) from None
            with part:
                part.seek(start)
                return part.read() if end is None else part.read(end - start)

    def delete(self, name: str) -> None:
        path = self._directory / name
        with map_errors():
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def list(self, prefix: str = "") -> Iterator[StoredPart]:
        directory, _, rest = prefix.partition("/")
        with map_errors(), contextlib.suppress(FileNotFoundError):
            for folder in sorted(os.scandir(self._directory), key=lambda entry: entry.name):
                is_match = folder.name == directory if "/" in prefix else folder.name.startswith(directory)
                if is_match and folder.is_dir(follow_symlinks=False):
                    yield from list_folder(folder, rest)


def list_folder(folder: os.DirEntry[str], prefix: str) -> Iterator[StoredPart]:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.name.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    yield StoredPart(f"{folder.name}/{entry.name}", entry.stat(follow_symlinks=False).st_mtime)


@contextlib.contextmanager
def map_errors() -> Iterator[None]:
    """Raises FileStoreDown or FileStoreFull for an OSError."""
    try:
        yield
    except OSError as error:
        kind = FileStoreFull if error.errno in FULL else FileStoreDown
        raise kind(f"the directory of files: {error.strerror or error}") from error


def write_durably(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
