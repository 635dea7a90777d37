"""What keeps this process's workers from taking jobs: `rq suspend`, and pools that an operator has paused."""

from collections.abc import Collection

from shared import names


class Suspension:
    """As this process has read it from Redis in the last second; turn.lua refuses the jobs of a paused pool at once."""

    def __init__(self) -> None:
        #: Whether `rq suspend` is in force.
        self.is_total = False
        #: Configured pools that are paused.
        self._paused: frozenset[str] = frozenset()

    def holds(self, pool: str) -> bool:
        """Whether the pool's workers may take no job now."""
        return self.is_total or (bool(self._paused) and names.configured_pool(pool) in self._paused)

    def mark_paused(self, pool: str) -> None:
        """Redis has refused a job of the pool."""
        self._paused |= {names.configured_pool(pool)}

    def sync(self, *, is_total: bool, paused: Collection[str]) -> None:
        """Takes over what Redis says. If that is older than a refusal, the next refusal corrects it."""
        self.is_total, self._paused = is_total, frozenset(paused)
