"""A table that makes what it does not have yet: for pools that come and go while a process runs."""

from collections.abc import Callable, Collection
from typing import TypeVar

V = TypeVar("V")


class PerPool(dict[str, V]):
    """What a process has for each pool, made when it is first asked for."""

    def __init__(self, make: Callable[[str], V], names: Collection[str] = ()) -> None:
        """`make` makes it from the pool's name; for `names` at once."""
        super().__init__({name: make(name) for name in names})
        self._make = make

    def __missing__(self, name: str) -> V:
        self[name] = made = self._make(name)
        return made

    def keep(self, names: Collection[str]) -> None:
        """Drops what is there for any other pool."""
        for name in [one for one in self if one not in names]:
            del self[name]
