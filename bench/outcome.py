"""Outcomes of a load's requests, per request and in total. No I/O."""

from collections import Counter
from dataclasses import dataclass, field

#: Outcomes; the others are `status <status> <code>` and `error event <code>`.
CORRECT, TRUNCATED, MIXED, STUCK, BROKEN, LEFT = "right", "TRUNCATED", "MIXED", "STUCK", "broken", "left"


@dataclass
class RequestRecord:
    """One request; times are seconds after the start of the load, 0 for never."""

    started: float
    outcome: str = ""
    #: The prompt; kept only when the client left.
    text: str = ""
    #: When the first byte of the body arrived.
    first_byte: float = 0.0
    ended: float = 0.0
    #: Seconds between two events of the stream.
    gaps: list[float] = field(default_factory=list)


@dataclass
class LoadResult:
    """The clients' view of one load."""

    #: Length of the load.
    seconds: float = 0.0
    #: Start of the load, in seconds since the epoch.
    started_at: float = 0.0
    #: Correct responses that ended within the load's time.
    completed: int = 0
    #: Outcome -> requests, of those that are not correct.
    errors: Counter[str] = field(default_factory=Counter)
    #: When each correct response ended, in seconds after the start.
    end_times: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    #: Seconds to the first byte of each correct response.
    first_bytes: list[float] = field(default_factory=list)
    records: list[RequestRecord] = field(default_factory=list)
    #: Seconds between two events of a stream, over all streams; 0 for events that arrived together.
    gaps: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Correct responses per second."""
        return self.completed / self.seconds if self.seconds else 0.0

    def busy_seconds(self, service: float, warm_up: float, until: float | None = None) -> float:
        """Upstream seconds spent on correct responses, each `service` long, between the warm-up and `until`.

        Counting whole responses would be off by up to the number of accounts, because the accounts respond in step.
        """
        stop = self.seconds if until is None else until
        overlaps = (min(end, stop) - max(end - service, warm_up) for end in self.end_times)
        return sum(max(0.0, overlap) for overlap in overlaps)

    def percentile(self, share: float, values: list[float] | None = None) -> float:
        """A percentile of the values, by default of the latencies in seconds; 0 without values."""
        ordered = sorted(self.latencies if values is None else values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def add(self, record: RequestRecord) -> None:
        """Adds a finished request."""
        self.records.append(record)
        if record.outcome != CORRECT:
            self.errors[record.outcome] += 1
            return
        self.end_times.append(record.ended)
        self.gaps += record.gaps
        if record.ended <= self.seconds:
            self.completed += 1
            self.latencies.append(record.ended - record.started)
            self.first_bytes.append(record.first_byte - record.started)
