"""A secret output file: refused early when it can't be written, and in place only when it is complete."""

import contextlib
import os
import secrets
import sys
from pathlib import Path
from types import TracebackType

from launcher.file_argument import resolve_path
from launcher.lost_output import require_output


class OutputFile:
    """A new file that only its owner can read, or standard output for `-`.

    Entering creates a draft beside the file; `write` completes it and gives it its name. Raises OSError for a file that
    exists, and for a directory or disk that can't be written.
    """

    def __init__(self, name: str) -> None:
        self._path = None if name == "-" else resolve_path(name)
        self._draft = Path()

    def __enter__(self) -> "OutputFile":
        if self._path:
            if self._path.exists() or self._path.is_symlink():
                raise FileExistsError(f"{self._path} is there already")
            self._draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
            os.close(os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return self

    def write(self, content: bytes) -> None:
        """Writes the whole content; returns once it is on disk under the file's name."""
        if not self._path:
            sys.stdout.buffer.write(content)
            require_output()
            return
        with self._draft.open("wb") as draft:
            draft.write(content)
            draft.flush()
            os.fsync(draft.fileno())
        try:
            # A link fails where a file has appeared meanwhile; a rename would replace it.
            self._path.hardlink_to(self._draft)
        except (PermissionError, NotImplementedError):
            self._draft.rename(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path:
            with contextlib.suppress(OSError):
                self._draft.unlink(missing_ok=True)
