"""What keeps the requests of a batch from being run, as the front that runs it sees it."""

from shared.files.store_health import AWAY, FULL

KEY_DISABLED, KEY_EXPIRED, KEY_OVER_QUOTA, KEY_LIMITED = "key_disabled", "key_expired", "key_over_quota", "key_limited"
POOL_PAUSED, NO_WORKER_PROCESS, NO_ACCOUNT = "pool_paused", "no_worker_process", "no_account"
UPSTREAM_DOWN, UPSTREAM_REFUSES, QUEUE_FULL = "upstream_down", "upstream_refuses", "queue_full"
FILE_STORE_FULL, FILE_STORE_AWAY, RESULTS_WAIT = "file_store_full", "file_store_away", "results_wait"
#: State of the store of files -> what that is to a batch.
FILE_STORE = {FULL: FILE_STORE_FULL, AWAY: FILE_STORE_AWAY}
#: Hindrance -> what operators are told, as a sentence without a full stop.
HINDRANCES = {
    KEY_DISABLED: "its key is disabled",
    KEY_EXPIRED: "its key has expired",
    KEY_OVER_QUOTA: "its key has used up its quota",
    KEY_LIMITED: "a limit of its key is used up",
    POOL_PAUSED: "its pool is paused",
    NO_WORKER_PROCESS: "no worker process runs",
    NO_ACCOUNT: "no account of its pool is in service",
    UPSTREAM_DOWN: "the upstream is down",
    UPSTREAM_REFUSES: "the upstream refuses the accounts",
    QUEUE_FULL: "the queue of its pool is full",
    FILE_STORE_FULL: "the store of files is full",
    FILE_STORE_AWAY: "the store of files can't be used",
    RESULTS_WAIT: "its results wait for the store of files",
}
