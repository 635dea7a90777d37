"""Names of pools, RQ queues and RQ workers, and what they contain."""

#: Separates a pool's name from the id of a private credential; no configured pool's name contains it.
PRIVATE_SEPARATOR = "~"


def private_pool(pool: str, credential_id: str) -> str:
    """The pool that consists of one private credential."""
    return f"{pool}{PRIVATE_SEPARATOR}{credential_id}"


def configured_pool(pool: str) -> str:
    """The configured pool that a private credential's pool belongs to; a configured pool is its own family."""
    return pool.partition(PRIVATE_SEPARATOR)[0]


def private_credential_id(pool: str) -> str:
    """The credential of a private credential's pool."""
    return pool.rpartition(PRIVATE_SEPARATOR)[2]


def is_private(pool: str) -> bool:
    """Whether the pool is a private credential's."""
    return PRIVATE_SEPARATOR in pool


def chat_queue(pool: str) -> str:
    """The pool's RQ queue for the interactive band."""
    return f"chat:{pool}"


def batch_queue(pool: str) -> str:
    """The pool's RQ queue for the batch band."""
    return f"batch:{pool}"


def worker_name(pool: str, credential_id: str, slot: int = 1) -> str:
    """The RQ worker bound to the credential; beyond the first slot, the name ends in the slot's number."""
    return f"{pool}.{credential_id}" if slot == 1 else f"{pool}.{credential_id}~{slot}"


def credential_id_of(worker_name: str) -> str:
    """The credential that the RQ worker is bound to."""
    return worker_name.rpartition(".")[2].partition("~")[0]
