"""Files that an operator names: relative to where the command was called, not to the farm's own folder."""

import os
from pathlib import Path


def resolve_path(name: str) -> Path:
    """The file as the caller meant it."""
    return Path(os.environ.get("CALLED_FROM", ".")) / Path(name).expanduser()
