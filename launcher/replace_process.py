"""Becomes another program, so that a signal to `./farm` reaches it."""

import os
import sys
from typing import NoReturn


def replace_process(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(command[0], command)
