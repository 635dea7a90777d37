"""Runs `up` in the background and waits until it is ready; secrets go to the terminal, never to the log."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

from launcher.processes.data_dir import DataDir

#: Bytes above which an old log is set aside at the start.
LARGEST_LOG = 10 * 1024 * 1024


def start_detached(data: DataDir, say: Callable[[str], None]) -> int:
    """Starts the farm in a session of its own; repeats what it says until it is ready or has failed."""
    data.make()
    if data.log.exists() and data.log.stat().st_size > LARGEST_LOG:
        data.log.replace(data.log.with_suffix(".log.1"))
    reading, writing = os.pipe()
    with data.log.open("ab") as log:
        data.log.chmod(0o600)
        farm = subprocess.Popen(
            [sys.executable, "-m", "launcher", "up", "--report-to", str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
        )
    os.close(writing)
    code = None
    with os.fdopen(reading) as report:
        for line in report:
            message = json.loads(line)
            if "say" in message:
                say(message["say"])
            if "error" in message:
                print(f"farm: {message['error']}", file=sys.stderr)
            code = message.get("code", code)
    if code is None:
        print(f"farm: it ended before it was ready; see {data.log}", file=sys.stderr)
    if code != 0:
        farm.wait()
    return 1 if code is None else code


class Report:
    """The other end: what the farm in the background says to the terminal that started it."""

    def __init__(self, fd: int) -> None:
        self._pipe = os.fdopen(fd, "w")
        os.set_inheritable(fd, False)

    def say(self, text: str) -> None:
        """A line for people."""
        self._write({"say": text})

    def fail(self, text: str, code: int) -> None:
        """Why it does not start."""
        self._write({"error": text, "code": code})

    def ready(self) -> None:
        """It runs; the terminal is free."""
        self._write({"code": 0})
        self._pipe.close()

    def _write(self, message: dict[str, object]) -> None:
        try:
            self._pipe.write(json.dumps(message) + "\n")
            self._pipe.flush()
        except (BrokenPipeError, ValueError):
            return
