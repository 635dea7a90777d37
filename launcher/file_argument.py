"""Resolves file arguments against the directory in which the operator ran `./farm`.

The set-up (bootstrap.py) changes to the farm's folder and passes the original directory in CALLED_FROM.
"""

import os
from pathlib import Path


def resolve_path(name: str) -> Path:
    return Path(os.environ.get("CALLED_FROM", ".")) / Path(name).expanduser()
