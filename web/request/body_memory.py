"""Bounds the memory for bodies that a front has not yet handed to Redis: backpressure first, then a 429."""

from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType

from gevent.event import Event

from shared.errors import ApiError

#: Bytes of a body that are read without a reservation.
UNRESERVED_BYTES = 16_384
#: Bytes reserved at a time for all bodies of a front. A body is copied about three times on its way to Redis.
CAPACITY_BYTES = 64 * 1024 * 1024
#: Seconds that a body waits for memory, and that a refused caller is told to wait.
WAIT_SECONDS = 30.0
RETRY_AFTER_SECONDS = "5"


@dataclass(eq=False)
class Waiter:
    """A body that waits for memory."""

    owner: str
    size: int
    granted: Event = field(default_factory=Event)


class BodyMemory:
    """The bytes reserved for all bodies of a front, granted in order of arrival.

    An owner (API key) holds half of them at most, unless it holds nothing else: one caller can't block the others.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = self._free = capacity
        self._held: Counter[str] = Counter()
        self._waiting: list[Waiter] = []

    @property
    def reserved(self) -> int:
        return self._capacity - self._free

    def acquire(self, owner: str, size: int) -> int:
        """Waits until `size` bytes are free; returns the bytes reserved. Raises ApiError 429 after WAIT_SECONDS."""
        waiter = Waiter(owner, min(size, self._capacity))
        self._waiting.append(waiter)
        self._grant()
        try:
            if waiter.granted.wait(WAIT_SECONDS):
                return waiter.size
        except BaseException:
            self._withdraw(waiter)
            raise
        self._withdraw(waiter)
        message = "too many large requests arrive at once; try again later"
        raise ApiError(429, "queue_full", message, "rate_limit_error", headers={"retry-after": RETRY_AFTER_SECONDS})

    def release(self, owner: str, size: int) -> None:
        self._free += size
        self._held[owner] -= size
        if not self._held[owner]:
            del self._held[owner]
        self._grant()

    def _withdraw(self, waiter: Waiter) -> None:
        if waiter.granted.is_set():
            self.release(waiter.owner, waiter.size)
        else:
            self._waiting.remove(waiter)
            self._grant()

    def _grant(self) -> None:
        for waiter in list(self._waiting):
            held = self._held.get(waiter.owner, 0)
            if held and held + waiter.size > self._capacity // 2:
                continue
            if waiter.size > self._free:
                return
            self._waiting.remove(waiter)
            self._free -= waiter.size
            self._held[waiter.owner] += waiter.size
            waiter.granted.set()


class Reservation:
    """The memory of one body, given back when the `with` block ends."""

    def __init__(self, memory: BodyMemory, owner: str) -> None:
        self._memory = memory
        self._owner = owner
        self._size = 0

    def reserve(self, size: int) -> None:
        """To be called once. Raises ApiError 429."""
        self._size = self._memory.acquire(self._owner, size)

    def resize(self, size: int) -> None:
        """Reserves another size instead. Raises ApiError 429."""
        if size > self._size:
            self._release()
            if size > UNRESERVED_BYTES:
                self.reserve(size)
        elif self._size:
            self._memory.release(self._owner, self._size - size)
            self._size = size

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._size:
            self._memory.release(self._owner, self._size)
            self._size = 0
