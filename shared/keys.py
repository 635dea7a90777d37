"""Every Redis key of the farm, with its type and lifetime; it holds no connection.

| key | type | holds | lifetime |
| --- | --- | --- | --- |
| farm:vault | string | public key that seals credentials | for ever |
| farm:admin-tokens | hash | SHA-256 of an admin token -> its record as JSON | for ever |
| farm:admin-tokens:made | string | a first admin token was made | for ever |
| farm:session-secret | string | signs the console's login sessions | for ever |
| farm:audit | stream | what operators have changed | the last 10,000 |
| farm:history:<credential id> | stream | states of a credential, with reasons | the last 100 |
| farm:api-keys | hash | SHA-256 of a key -> its record as JSON | for ever |
| farm:api-key-ids | hash | id of a key -> SHA-256 of it | for ever |
| farm:limit:requests:<key id> | list | times of the key's requests in the last minute | a minute |
| farm:limit:tokens:<key id> | hash | second -> tokens of the key in it | a minute |
| farm:limit:running:<key id> | sorted set | a key's requests that have not ended -> when they do | until they end |
| farm:limit:reserved:<key id> | hash | such a request -> <tokens reserved>:<second> | until it ends |
| farm:quota:<key id> | hash | what a key's quota was used for: `period`, `tokens`, `reserved`, `requests` | for ever |
| farm:fair:<pool> | hash | virtual times, weights, average cost (shared/protocol/fair.lua) | for ever |
| farm:fair:<pool>:<band> | sorted set | API keys with requests waiting -> their tags | while they wait |
| farm:fair:<pool>:<band>:<key id> | list | the key's requests that wait, in their order | while they wait |
| farm:idle:<pool> | sorted set | workers that wait for a job -> since when | until they work |
| farm:log | stream | the request log: an entry for each request that has ended | by age and number |
| farm:log:<batch> | string | that a batch of entries was written | minutes |
| farm:usage:folded | string | id of the last entry of the log that was added up | for ever |
| farm:usage:hour:<time>, :day:<time> | hash | usage (shared/observability/usage.py) | as configured, 400 days |
| farm:last-used | hash | API key id -> when it was last used | for ever |
| farm:credentials:<pool> | hash | credential id -> state | for ever |
| farm:credential:<id> | hash | the credential | until removed |
| farm:fingerprints:<pool> | hash | SHA-256 of a refresh token -> credential id, private ones too | until removed |
| farm:private | sorted set | a private credential's pool, `<pool>~<credential id>` -> its last use | until it is idle |
| farm:private:refused:<SHA-256> | string | the token endpoint has refused that token | a minute |
| farm:private:tries:<network> | set | SHA-256 of tokens from there that were not good | minutes |
| farm:lease:<credential id> | string | <worker process>:<fencing number> | seconds, renewed |
| farm:processes | sorted set | worker process -> time of its last heartbeat | trimmed by age |
| farm:errands:<worker process> | list | what an operator asks of it (credential_operations.py) | a minute |
| farm:errand:<id> | list | the answer to one of them | a minute |
| farm:process:<id> | hash | what a worker process reports of itself | seconds, renewed |
| farm:fronts | sorted set | web process -> time of its last sign of life | trimmed by age |
| farm:gone:<web process> | string | a web process has died, so nobody waits for its jobs | an hour |
| farm:body:<request id> | string | a request's body | until its job ends, or its deadline |
| farm:counters | hash | metric and its labels -> value | for ever |
| farm:served:<pool> | string | jobs that ended | for ever |
| farm:models:<pool> | string | the upstream's model list | minutes |
| farm:logins:<address> | string | wrong admin tokens from there | minutes |
| farm:reply:<web process>:<request id> | channel | frames of one response | – |
| farm:breaker:<pool> | hash | the upstream is down: `since`, `reason`, `probe_at`, `failed_probes` | until it is back |
| farm:probe:<pool> | string | whose worker tries it: <worker process>:<credential id> | seconds, renewed |
| farm:front:<web process> | channel | nothing; that somebody listens tells that the web process lives | – |
| farm:flow | channel | what the web processes tell the workers of the answers they take in | – |
| rq:… | RQ's own keys | queues `chat:<pool>`, workers `<pool>.<credential id>`, jobs | RQ's |
"""

from shared import names

SEALING_KEY = "farm:vault"
ADMIN_TOKENS = "farm:admin-tokens"
ADMIN_TOKENS_MADE = "farm:admin-tokens:made"
SESSION_SECRET = "farm:session-secret"  # noqa: S105 (the key's name)
AUDIT_LOG = "farm:audit"
API_KEYS = "farm:api-keys"
API_KEY_IDS = "farm:api-key-ids"
PROCESSES = "farm:processes"
COUNTERS = "farm:counters"
FRONTS = "farm:fronts"
REPLY_ACKS = "farm:flow"
REQUEST_LOG = "farm:log"
USAGE_ROLLED_UP = "farm:usage:folded"
LAST_USED = "farm:last-used"
PRIVATE_POOLS = "farm:private"


#: Set by `rq suspend` (rq.suspension.WORKERS_SUSPENDED).
RQ_SUSPENDED = "rq:suspended"


def recent_requests(key_id: str) -> str:
    """List: times of the key's requests in the last minute."""
    return f"farm:limit:requests:{key_id}"


def recent_tokens(key_id: str) -> str:
    """Hash: second -> tokens of the key in it."""
    return f"farm:limit:tokens:{key_id}"


def running_requests(key_id: str) -> str:
    """Sorted set: the key's requests that have not ended."""
    return f"farm:limit:running:{key_id}"


def quota(key_id: str) -> str:
    """Hash: what the key's quota was used for."""
    return f"farm:quota:{key_id}"


def fair_queue(pool: str) -> str:
    """Hash, and the stem of other keys: the pool's fair queue."""
    return f"farm:fair:{pool}"


def idle_workers(pool: str) -> str:
    """Sorted set: the pool's workers that wait for a job."""
    return f"farm:idle:{pool}"


def log_batch_mark(batch: str) -> str:
    """String: a batch of entries of the request log was written."""
    return f"farm:log:{batch}"


def usage_hour(at: int | str) -> str:
    """Hash: what was used in the hour that begins at that time, seconds since the epoch."""
    return f"farm:usage:hour:{at}"


def usage_day(at: int | str) -> str:
    """Hash: what was used in the day (UTC) that begins at that time."""
    return f"farm:usage:day:{at}"


def credentials(pool: str) -> str:
    """Hash: credential id -> state."""
    return f"farm:credentials:{pool}"


def credential(credential_id: str) -> str:
    """Hash: one credential."""
    return f"farm:credential:{credential_id}"


def history(credential_id: str) -> str:
    """Stream: the credential's states."""
    return f"farm:history:{credential_id}"


def fingerprints(pool: str) -> str:
    """Hash: SHA-256 of a refresh token -> credential id; one for a pool and the private credentials in it."""
    return f"farm:fingerprints:{names.configured_pool(pool)}"


def refused_token(fingerprint: str) -> str:
    """String: the token endpoint has refused that token lately."""
    return f"farm:private:refused:{fingerprint}"


def token_tries(network: str) -> str:
    """Set: tokens from there that were tried lately and were not good."""
    return f"farm:private:tries:{network}"


def lease(credential_id: str) -> str:
    """String: who owns the credential."""
    return f"farm:lease:{credential_id}"


def process(process_id: str) -> str:
    """Hash: what a worker process reports of itself."""
    return f"farm:process:{process_id}"


def operations(process_id: str) -> str:
    """List: what an operator asks of the worker process."""
    return f"farm:errands:{process_id}"


def operation_result(errand_id: str) -> str:
    """List: the answer to an errand."""
    return f"farm:errand:{errand_id}"


def front_channel(web_process: str) -> str:
    """Channel: that the web process listens on it tells that it lives."""
    return f"farm:front:{web_process}"


def front_gone(web_process: str) -> str:
    """String: the web process has died."""
    return f"farm:gone:{web_process}"


def body(request_id: str) -> str:
    """String: the request's body as it came."""
    return f"farm:body:{request_id}"


def breaker(pool: str) -> str:
    """Hash: the pool's upstream is down."""
    return f"farm:breaker:{pool}"


def probe(pool: str) -> str:
    """String: whose worker tries whether the upstream is back."""
    return f"farm:probe:{pool}"


def served_jobs(pool: str) -> str:
    """String: count of jobs that ended; its growth is the drain rate."""
    return f"farm:served:{pool}"


def models(pool: str) -> str:
    """String: the upstream's model list as it came."""
    return f"farm:models:{pool}"


def failed_logins(address: str) -> str:
    """String: how many wrong admin tokens came from there lately."""
    return f"farm:logins:{address}"


def reply_channel(web_process: str, request_id: str) -> str:
    """Channel: the frames of one response."""
    return f"farm:reply:{web_process}:{request_id}"
