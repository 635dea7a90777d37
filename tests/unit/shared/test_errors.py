"""The tree of errors drawn in shared/errors.py is complete."""

import importlib
import pkgutil
import re

from shared import errors
from shared.errors import FarmError

#: Modules that start a program when they are imported.
PROGRAMS = ("__main__", "gunicorn_conf")


def import_all(package: str) -> None:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith(PROGRAMS):
            importlib.import_module(module.name)


def drawn_tree() -> dict[str, str]:
    """Error -> its parent, as the docstring draws them."""
    parents: dict[str, str] = {}
    path = ["FarmError"]
    for branch, name in re.findall(r"^([│ ]*[├└]── )(\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(branch) // 4
        del path[depth:]
        parents[name] = path[-1]
        path.append(name)
    return parents


def defined_tree(root: type[FarmError]) -> dict[str, str]:
    """Error -> its parent, as the classes are."""
    tree: dict[str, str] = {}
    for child in root.__subclasses__():
        if not child.__module__.startswith("tests."):
            tree |= {child.__name__: root.__name__, **defined_tree(child)}
    return tree


def test_docstring_draws_every_error_below_its_parent():
    for package in ("shared", "web", "workers", "launcher"):
        import_all(package)
    assert drawn_tree() == defined_tree(FarmError)
