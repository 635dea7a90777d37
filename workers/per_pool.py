"""A dict of per-pool objects, each created on first use."""

from collections.abc import Callable, Collection
from typing import TypeVar

V = TypeVar("V")


class PerPool(dict[str, V]):
    """Pool name -> object. Pools of private credentials come and go while the process runs."""

    def __init__(self, factory: Callable[[str], V], names: Collection[str] = ()) -> None:
        """`factory` creates the object for a pool's name; those for `names` are created now."""
        super().__init__({name: factory(name) for name in names})
        self._factory = factory

    def __missing__(self, name: str) -> V:
        self[name] = value = self._factory(name)
        return value

    def keep(self, names: Collection[str]) -> None:
        """Drops the objects of all other pools."""
        for name in [pool for pool in self if pool not in names]:
            del self[name]
