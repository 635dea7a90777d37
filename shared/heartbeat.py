"""A heartbeat that a forked process beats and its parent watches."""

import mmap


class Heartbeat:
    """One byte of memory shared between a process and those that it forks, which counts beats."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def beat(self) -> None:
        self._memory[0] = (self._memory[0] + 1) % 256

    @property
    def count(self) -> int:
        """It wraps around: two values tell only whether there was a beat between them."""
        return self._memory[0]
