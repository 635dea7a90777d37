"""What `python -m workers.alerts` is told, and what it answers: JSON on its standard streams."""

import json
import secrets
from dataclasses import asdict, dataclass, field

from shared.decoding import parse_record

#: What is to be done.
DELIVER, TEST, CHECK = "deliver", "test", "check"
#: Seconds that a delivery may take; then its process is killed.
DELIVERY_SECONDS = 60


@dataclass(frozen=True)
class Order:
    """Send a receiver what it has not been told, or a test; or only check its URL."""

    redis_url: str = field(repr=False)
    #: One of FARM_ALERT_URLS.
    url: str = field(repr=False)
    #: Id of the receiver.
    receiver: str
    #: The farm's name in titles, and the address of its time line, '' if that isn't known.
    farm: str
    link: str
    kind: str = DELIVER
    #: Code of the language of messages.
    language: str = "en"
    #: Names the process that carries it out.
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, encoded: bytes) -> "Order":
        """Raises UnreadableRecord."""
        return parse_record(cls, encoded)


@dataclass(frozen=True)
class Outcome:
    """What has become of it."""

    #: Notices that the receiver has been told.
    told: int = 0
    #: Why it has not, or what is wrong with the URL; '' for nothing.
    error: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, encoded: bytes) -> "Outcome":
        """Raises UnreadableRecord."""
        return parse_record(cls, encoded)
