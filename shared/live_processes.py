"""Which processes count as alive where operators look: those whose heartbeat in Redis is recent."""

from shared import clock

#: Seconds without a heartbeat after which a process counts as gone. One that was killed may stay listed.
HEARTBEAT_TIMEOUT_SECONDS = 10.0


def find_oldest_heartbeat() -> float:
    """The oldest that a live process may have, in seconds since the epoch."""
    return clock.now() - HEARTBEAT_TIMEOUT_SECONDS
