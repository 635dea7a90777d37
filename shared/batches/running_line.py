"""Who runs a line of a batch: the value of its field in `farm:batch:<id>:running`."""

import secrets
from dataclasses import dataclass

from shared.decoding import UnreadableRecord

#: In place of a front: the line waits for anyone.
NOBODY = "-"


@dataclass(frozen=True)
class RunningLine:
    """One line that has begun, and has no result yet."""

    #: Id of the front that runs it, and what tells one run of the line from another.
    front: str
    nonce: str
    #: When the run began, in seconds since the epoch.
    since: int
    #: Where in the input the line is, in bytes.
    offset: int
    length: int

    def encode(self) -> str:
        return f"{self.front} {self.nonce} {self.since} {self.offset} {self.length}"

    @classmethod
    def decode(cls, encoded: bytes) -> "RunningLine":
        """Raises UnreadableRecord."""
        try:
            front, nonce, *numbers = encoded.decode().split(" ")
            since, offset, length = map(int, numbers)
        except ValueError:
            raise UnreadableRecord("a RunningLine is broken") from None
        return cls(front, nonce, since, offset, length)


def begin_run(front: str, now: float, offset: int, length: int) -> RunningLine:
    return RunningLine(front, secrets.token_hex(4), int(now), offset, length)
