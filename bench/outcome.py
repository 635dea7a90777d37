"""What became of the requests of a load: one record each, and what they come to together; no I/O."""

from collections import Counter
from dataclasses import dataclass, field

#: Outcomes beside `status <status> <code>` and `error event <code>`.
RIGHT, TRUNCATED, MIXED, STUCK, BROKEN, LEFT = "right", "TRUNCATED", "MIXED", "STUCK", "broken", "left"


@dataclass
class Record:
    """One request. Times are seconds after the start of the load, 0 for never."""

    began: float
    outcome: str = ""
    #: What was asked, kept only of one who left.
    text: str = ""
    #: When the first byte of the body came, and when all was over.
    first: float = 0.0
    ended: float = 0.0
    gaps: list[float] = field(default_factory=list)


@dataclass
class Result:
    """What the clients saw."""

    seconds: float = 0.0
    #: When it began, seconds since the epoch.
    started: float = 0.0
    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    #: When each answer ended, seconds after the start.
    ends: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    #: Seconds between two events of a stream, of all streams; 0 for those that came together.
    gaps: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Right answers per second."""
        return self.answers / self.seconds if self.seconds else 0.0

    def busy_seconds(self, service: float, warm_up: float, until: float | None = None) -> float:
        """Upstream seconds that the answers took, each `service` long, inside the window after the warm-up.

        Counting whole answers would jump by as many as there are accounts, because they answer in step.
        """
        stop = self.seconds if until is None else until
        overlaps = (min(end, stop) - max(end - service, warm_up) for end in self.ends)
        return sum(max(0.0, overlap) for overlap in overlaps)

    def percentile(self, share: float, values: list[float] | None = None) -> float:
        """A percentile of the latencies, in seconds."""
        ordered = sorted(self.latencies if values is None else values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def add(self, record: Record) -> None:
        """Takes note of a request that is over."""
        self.records.append(record)
        if record.outcome != RIGHT:
            self.errors[record.outcome] += 1
            return
        self.ends.append(record.ended)
        self.gaps += record.gaps
        if record.ended <= self.seconds:
            self.answers += 1
            self.latencies.append(record.ended - record.began)
            self.first_bytes.append(record.first - record.began)
