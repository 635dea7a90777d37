"""What an operator sees of a credential, and the states that one can be in; no token in it, no Redis."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["active", "cooling", "disabled", "dead"]
STATES: tuple[State, ...] = ("active", "cooling", "disabled", "dead")
#: States whose credentials have a worker. A cooling one keeps its worker, which takes no job meanwhile.
USABLE: tuple[State, ...] = ("active", "cooling")
#: What Redis keeps of one that may be seen.
VISIBLE_FIELDS = (
    *("label", "added_at", "refreshed_at", "rotations", "access_expires", "reason", "until", "state_since"),
    *("exported_at", "export_outdated"),
)


@dataclass(frozen=True)
class CredentialRecord:
    """What an operator sees of a credential; no token in it. Times are seconds since the epoch, 0 for never."""

    id: str
    pool: str
    state: str
    label: str = ""
    added_at: float = 0
    refreshed_at: float = 0
    rotations: int = 0
    access_expires: float = 0
    reason: str = ""
    until: float = 0
    state_since: float = 0
    exported_at: float = 0
    #: Whether its token has rotated since it was exported, so that the exported one is good no more.
    export_outdated: bool = False
    #: The worker process that holds it now, '' when none does.
    owner: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class StateChange:
    """A state that a credential went into, when (seconds since the epoch) and why."""

    time: float
    state: str
    reason: str


def build_record(
    pool: str, credential_id: str, state: str, values: list[bytes | None], lease: bytes | None
) -> CredentialRecord:
    """A record from what Redis holds."""
    found = {name: value.decode() for name, value in zip(VISIBLE_FIELDS, values, strict=True) if value}
    times = {
        name: float(found.get(name) or 0)
        for name in VISIBLE_FIELDS
        if name.endswith(("_at", "until", "since", "expires"))
    }
    return CredentialRecord(
        id=credential_id,
        pool=pool,
        state=state,
        label=found.get("label", ""),
        reason=found.get("reason", ""),
        rotations=int(found.get("rotations", 0)),
        export_outdated=bool(found.get("export_outdated")),
        owner=lease.decode().rpartition(":")[0] if lease else "",
        **times,
    )
