"""A flag that a forked process sets and its parent reads."""

import mmap


class ReadyFlag:
    """One byte of memory shared between a process and those that it forks."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    @property
    def is_set(self) -> bool:
        return self._memory[0] == 1
