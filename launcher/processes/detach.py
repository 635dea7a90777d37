"""Runs `up` in the background and waits until it is ready.

The farm in the background reports over a pipe, one JSON object per line: {"say": text} for a line to print,
{"error": text, "code": exit code} when it fails, {"code": 0} when it is ready. Secrets that are shown once go over the
pipe to the terminal, never to the log.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable

from launcher.processes.data_dir import DataDir

#: Size above which the log is rotated at the start.
MAX_LOG_BYTES = 10 * 1024 * 1024


def start_detached(data: DataDir, print_line: Callable[[str], None]) -> int:
    """Starts the farm in its own session, prints its report until it is ready or has failed; returns the exit code."""
    data.create()
    if data.log_file.exists() and data.log_file.stat().st_size > MAX_LOG_BYTES:
        data.log_file.replace(data.log_file.with_suffix(".log.1"))
    read_fd, write_fd = os.pipe()
    with data.log_file.open("ab") as log:
        data.log_file.chmod(0o600)
        farm = subprocess.Popen(
            [sys.executable, "-m", "launcher", "up", "--report-to", str(write_fd)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write_fd,),
            start_new_session=True,
        )
    os.close(write_fd)
    code = None
    with os.fdopen(read_fd) as report:
        for line in report:
            message = json.loads(line)
            if "say" in message:
                print_line(message["say"])
            if "error" in message:
                print(f"farm: {message['error']}", file=sys.stderr)
            code = message.get("code", code)
    if code is None:
        print(f"farm: it exited before it was ready; see {data.log_file}", file=sys.stderr)
    if code != 0:
        farm.wait()
    return 1 if code is None else code


class StartReport:
    """The writing end of the pipe: reports from the farm in the background to the terminal that started it."""

    def __init__(self, fd: int) -> None:
        self._pipe = os.fdopen(fd, "w")
        os.set_inheritable(fd, False)

    def print_line(self, text: str) -> None:
        """Prints a line on the terminal."""
        self._write({"say": text})

    def report_failure(self, text: str, code: int) -> None:
        """Reports why the farm does not start, and its exit code."""
        self._write({"error": text, "code": code})

    def report_ready(self) -> None:
        """Reports that the farm is running and releases the terminal."""
        self._write({"code": 0})
        self._pipe.close()

    def _write(self, message: dict[str, object]) -> None:
        try:
            self._pipe.write(json.dumps(message) + "\n")
            self._pipe.flush()
        except (BrokenPipeError, ValueError):
            return
