"""Names of all Redis keys, with their types and lifetimes.

A front is one web process, identified by its process id. "Forever" means that nothing expires or trims the key.

| key | type | contents | lifetime |
| --- | --- | --- | --- |
| farm:schema | hash | `version` of the data, and the oldest version that it `needs` | forever |
| farm:vault | string | public key that seals credentials | forever |
| farm:vault:next | string | the public key that `./farm rekey` is introducing | until it is done |
| farm:admin-tokens | hash | SHA-256 of an admin token -> its record as JSON | forever |
| farm:admin-tokens:made | string | marks that the first admin token was created | forever |
| farm:admin-session:<SHA-256> | string | login session, by the hash of its secret | until idle for an hour; 12 hours |
| farm:admin-sessions | sorted set | SHA-256 of a login session's secret -> when it was last used | the last 1,000 |
| farm:audit | stream | changes made by operators | about the last 10,000 |
| farm:history:<credential id> | stream | state changes of a credential, with reasons | about the last 100 |
| farm:activity:<credential id> | hash | what it has done lately (shared/credentials/activity) | until removed |
| farm:api-keys | hash | SHA-256 of an API key -> its record as JSON | forever |
| farm:api-key-ids | hash | id of an API key -> its SHA-256 | forever |
| farm:api-keys:superseded | hash | SHA-256 of a replaced secret -> API key id, times (superseded.py) | forever |
| farm:limit:requests:<key id> | list | when the API key's requests of the last minute were counted | a minute |
| farm:limit:tokens:<key id> | hash | second -> tokens the API key used in it | a minute |
| farm:limit:running:<key id> | sorted set | the API key's unfinished requests -> their latest end | until they end |
| farm:limit:reserved:<key id> | hash | unfinished request -> <reserved tokens>:<second>:<period> | until it ends |
| farm:limit:started:<key id> | set | the API key's requests with a slot of its concurrency limit | until they end |
| farm:limit:held:<key id> | set | <band>:<pool> of the API key's held requests | while requests are held |
| farm:limit:held:<key id>:<band>:<pool> | list | the API key's held requests, in order | while requests are held |
| farm:limit:limits:<key id> | hash | the API key's limits in force, and its pace (limits.lua) | forever |
| farm:limit:looked:<key id> | string | marks that the jobs of its requests were just looked up | a second |
| farm:refusals:<key id>:<time> | hash | error code -> refused requests of the five minutes from then on | an hour |
| farm:quota:<key id> | hash | quota used: `period`, `since`, `tokens`, `reserved`, `requests` | forever |
| farm:fair:<pool> | hash | virtual times, weights, average cost (shared/protocol/fair.lua) | forever |
| farm:fair:<pool>:<band> | sorted set | API keys with queued requests -> virtual start tags | while requests wait |
| farm:fair:<pool>:<band>:<key id> | list | the API key's queued requests, in order | while requests wait |
| farm:fair:<pool>:retries | sorted set | retries that wait for a credential -> when admitted | until started |
| farm:fair:<pool>:retries:batch | sorted set | those of the batch band | until started |
| farm:fair:<pool>:<band>:<key id>:<model> | list | the same, set aside (model_queues.lua) | while requests wait |
| farm:fair:<pool>:aside:<band> | sorted set | requests set aside -> when admitted | until started |
| farm:fair:<pool>:aside:<band>:<model> | sorted set | API keys with requests set aside -> tags | while requests wait |
| farm:fair:<pool>:resting | sorted set | model for which credentials rest -> the latest end | until that |
| farm:resting-models:<credential id> | hash | model for which the credential rests -> until when | until the last end |
| farm:account-limits:<pool> | hash | what limits are counted per: `counts` (`model`, `account`), its evidence | a day |
| farm:account-limits:<pool>:trial | string | credential that tries another model | a minute |
| farm:idle:<pool> | sorted set | idle workers -> since when they have been waiting for a job | until they get one |
| farm:shares:<pool>:<slot> | hash | API key -> seconds of workers (shared/observability/key_seconds.py) | 6 minutes |
| farm:samples:<step> | stream | totals every 5 or 60 seconds (shared/observability/samples.py) | an hour; a day |
| farm:account-seconds:<time> | hash | <letter><credential id> -> seconds of that hour | 26 hours after its last write |
| farm:in-flight-peaks | sorted set | configured pool -> most requests ever at once on an account | forever |
| farm:events | stream | what happened in the farm (shared/observability/event_log.py) | about the last 10,000 |
| farm:alerts | hash | alert that is raised -> its record as JSON (shared/alerts) | 7 days unwatched |
| farm:alerts:notices | stream | what receivers are to be told: an alert was raised, or is over | the last 1,000 |
| farm:alerts:receivers | hash | receiver of alerts -> how far it has been told | 7 days unwatched |
| farm:alerts:lease | string | worker process that watches for alerts | seconds, renewed |
| farm:alerts:delivery:<receiver> | string | the process that sends it a message | until it ends; 75 s |
| farm:log | stream | request log: one entry per finished request | limited by age and count |
| farm:log:<batch> | string | marks that a batch of log entries was written (idempotence) | 10 minutes |
| farm:usage:folded | string | id of the last log entry that was rolled up into usage | forever |
| farm:usage:hour:<time>, :day:<time> | hash | sums (shared/observability/usage.py) | as configured; 400 days |
| farm:usage:key:<key id> | hash | start of a past UTC day -> tokens of the API key (from the sums) | 30 days |
| farm:last-used | hash | API key id -> when it was last used | forever |
| farm:credentials:<pool> | hash | credential id -> state | forever |
| farm:credential:<id> | hash | a credential (fields: shared/credentials/records.py) | until removed |
| farm:removed:<credential id> | hash | what is known of a removed one (shared/credentials/removal.py) | 400 days |
| farm:credential-limits | hash | credential id -> limits of its own (shared/pacing/account_limits.py) | until removed |
| farm:fingerprints:<pool> | hash | SHA-256 of a refresh token -> credential id, also private | until removed |
| farm:accounts:<pool> | hash | SHA-256 of an account's issuer and subject -> credential id | until removed |
| farm:sign-in:<id> | hash | a sign-in (fields: shared/sign_in/sign_in.py) | an hour after its time |
| farm:sign-in:state:<SHA-256> | string | id of the sign-in whose `state` it is | until its time is over |
| farm:sign-in:poll:<id> | string | token refresher that polls for a device's sign-in | seconds, renewed |
| farm:sign-ins | sorted set | id of a sign-in -> when it ended, or will end | trimmed by age |
| farm:private | sorted set | private pool `<pool>~<credential id>` -> when it was last used | until idle |
| farm:private:refused:<SHA-256> | string | marks a refresh token that the token endpoint has just refused | a minute |
| farm:private:tries:<network> | set | SHA-256 of unproven refresh tokens presented from the network | 5 minutes |
| farm:pace:<credential id> | hash | an account within its limits (shared/pacing/pace.lua) | two days after its use |
| farm:pace:<credential id>:<limit> | list | what it used of the limit | the limit's minute or day |
| farm:lease:<credential id> | string | <worker process>:<fencing token> | seconds, renewed |
| farm:processes | sorted set | worker process -> time of its last heartbeat | trimmed by age |
| farm:processes:retiring | sorted set | worker process that takes no new requests -> last report | trimmed by age |
| farm:handover | string | worker process that retires because others take over | 20 s after its last report |
| farm:refreshers | sorted set | token refresher -> time of its last report | trimmed by age |
| farm:process:<worker process> | hash | what a worker process reports about itself | seconds, renewed |
| farm:tape:<worker process> | stream | what its workers did, second by second | 2 minutes |
| farm:tapes | sorted set | worker process -> when its tape last named its credentials | trimmed by age |
| farm:errands:<worker process> | list | credential operations requested of it | a minute |
| farm:errand:<operation id> | list | result of a credential operation | a minute |
| farm:bulk:<operation id> | hash | progress of an operation on many credentials (web/admin/bulk) | a day |
| farm:bulk:<operation id>:results | hash | credential id -> what became of it | a day |
| farm:fronts | sorted set | front -> time of its last heartbeat | trimmed by age |
| farm:fronts:body-bytes | hash | front -> bytes that it holds for bodies on their way to Redis | until it ends |
| farm:gone:<front> | string | marks a front that has died: its jobs have no caller | an hour |
| farm:body:<request id> | string | body of a request | until its reply starts or its job ends |
| farm:upload:<request id> | string | large body on its way in, before its request is admitted | 5 minutes |
| farm:answer:<name> | list | a kept answer: print or time, sealed pieces (web/replay) | as configured; 10 minutes |
| farm:answer-upload:<request id>:<name> | list | sealed pieces of an answer, before it is kept | a minute |
| farm:answers:used | sorted set | name of a kept answer -> when it was last used (milliseconds) | until dropped |
| farm:answers:ends | sorted set | name of a kept answer -> when it expires (milliseconds) | until dropped |
| farm:answers:sizes | hash | name of a kept answer -> its bytes; `total` | until dropped |
| farm:run-export:<request id>:<name> | list | sealed frames of a run, for other fronts (web/replay) | a minute |
| farm:creation:<name> | hash | what an idempotency key has created: `print`, `answer` (shared/creations) | 10 minutes |
| farm:run:<name> | hash | the `front` and `run` (request id) that shares its answer, its `print` | until it ends |
| farm:body-sizes | hash | request id -> <bytes of its body>:<API key id> | until its job ends |
| farm:body-sums | hash | sums of these: `total`, `key:<API key id>`; `checked` | forever |
| farm:counters | hash | metric and its labels -> value | forever |
| farm:counted:<source> | string | number of the last batch of counts that this process has added | an hour |
| farm:stream-options-refused:<pool> | string | marks an upstream that refuses `stream_options` | a day |
| farm:served:<pool> | string | number of finished jobs | forever |
| farm:models:<pool> | string | the upstream's model list | an hour; renewed after 5 minutes |
| farm:models-renewal:<pool> | string | empty while a front fetches the list, then the error if that failed | seconds |
| farm:logins:<network> | string | number of wrong admin tokens from the address (IPv6: the /64) | 5 minutes |
| farm:logins-in-all | string | number of wrong admin tokens from all addresses | 5 minutes |
| farm:login-refusals | string | number of refused logins in the audit log, which is bounded per hour | an hour |
| farm:login-networks | sorted set | network -> when a right admin token last came from it | the last 256 |
| farm:breaker:<pool> | hash | open circuit breaker: `since`, `reason`, `probe_at`, `failed_probes` | until it closes |
| farm:probe:<pool> | string | worker that probes the upstream: <worker process>:<credential id> | seconds, renewed |
| farm:paused:<pool> | string | marks a paused pool (shared/protocol/pool_pause.py) | until it is resumed |
| farm:token-breaker:<pool> | hash | open token breaker: fields of farm:breaker:<pool> | until it closes |
| farm:token-probe:<pool> | string | probe of the token endpoint: <worker process>:<credential id> | until it ends |
| farm:token-failures:<pool> | sorted set | credential that failed since the last grant -> when | a minute |
| farm:token-granted:<pool> | string | when the token endpoint last granted a token | forever |
| farm:file:<id> | hash | a file (fields: shared/files/file_record.py) | until deleted or expired |
| farm:files | sorted set | id of a file -> when it was created (ms) | until deleted or expired |
| farm:files:<key id> | sorted set | the same, of one API key | until deleted or expired |
| farm:files:expiring | sorted set | id of a file -> when it expires, unless a batch reads it | until deleted |
| farm:files:bytes | hash | API key id -> bytes of its files | while it has files |
| farm:files:sums | hash | `<purpose>:files` and `<purpose>:bytes`: what all API keys store | while there are files |
| farm:files:trouble | hash | why files can't be stored (shared/files/store_health.py) | until they can be |
| farm:files:probe | string | a front tries whether files can be stored again | seconds |
| farm:files:reserved | sorted set | id of a file that is being made -> until when its parts are kept | a day after |
| farm:files:lease | string | front that deletes what is due | minutes, renewed |
| farm:files:store | string | marks the store of files as this farm's (web/files/retention.py) | forever |
| farm:batch:<id> | hash | a batch (fields: shared/batches/batch.py) | until 30 days after its end |
| farm:batch:<id>:lease | string | front that runs the batch | seconds, renewed |
| farm:batch:<id>:running | hash | number of a line -> who runs it (shared/batches/running_line.py) | until its result |
| farm:batch:<id>:done | string | bits of the lines that have a result | until the batch ends |
| farm:batch:<id>:results | list | results that no part in the store has yet | until they are stored |
| farm:batches | sorted set | id of a batch -> when it was created | as long as its record |
| farm:batches:active | sorted set | unfinished batch -> when it was created | until it ends |
| farm:batches:<key id> | sorted set | the API key's batches, likewise | as long as their records |
| farm:batches:active:<key id> | set | the API key's unfinished batches | until they end |
| farm:reply:<front>:<request id> | channel | frames of one reply | – |
| farm:front:<front> | channel | no messages; having a subscriber proves that the front is alive | – |
| farm:flow | channel | the fronts' acknowledgements to the workers (shared/protocol/reply_acks.py) | – |
| rq:… | RQ's own keys | queues `chat:<pool>` and `batch:<pool>`, workers `<pool>.<credential id>`, jobs | RQ's |
"""

from shared import names

DATA_VERSION = "farm:schema"
SEALING_KEY = "farm:vault"
NEXT_SEALING_KEY = "farm:vault:next"
ADMIN_TOKENS = "farm:admin-tokens"
ADMIN_TOKENS_INITIALIZED = "farm:admin-tokens:made"
ADMIN_SESSIONS = "farm:admin-sessions"
#: Signed the cookies of earlier versions; deleted at start.
OBSOLETE_SESSION_SECRET = "farm:session-secret"  # noqa: S105 (the key's name)
FAILED_LOGINS_IN_ALL = "farm:logins-in-all"
LOGGED_REFUSALS = "farm:login-refusals"
LOGIN_NETWORKS = "farm:login-networks"
AUDIT_LOG = "farm:audit"
API_KEYS = "farm:api-keys"
API_KEY_IDS = "farm:api-key-ids"
SUPERSEDED_API_KEYS = "farm:api-keys:superseded"
PROCESSES = "farm:processes"
RETIRING_PROCESSES = "farm:processes:retiring"
TAPES = "farm:tapes"
HANDOVER = "farm:handover"
REFRESHERS = "farm:refreshers"
COUNTERS = "farm:counters"
FRONTS = "farm:fronts"
FRONT_BODY_BYTES = "farm:fronts:body-bytes"
FRONT_LOADS = "farm:fronts:loads"
#: Written by shared/protocol/bodies.lua.
BODY_SUMS = "farm:body-sums"
#: Written by web/replay/answers/kept_answers.lua, as the next two.
ANSWERS_USED = "farm:answers:used"
ANSWER_ENDS = "farm:answers:ends"
ANSWER_SIZES = "farm:answers:sizes"
REPLY_ACKS = "farm:flow"
EVENTS = "farm:events"
ALERTS = "farm:alerts"
ALERT_NOTICES = "farm:alerts:notices"
ALERT_RECEIVERS = "farm:alerts:receivers"
ALERT_LEASE = "farm:alerts:lease"
IN_FLIGHT_PEAKS = "farm:in-flight-peaks"
REQUEST_LOG = "farm:log"
USAGE_ROLLED_UP = "farm:usage:folded"
LAST_USED = "farm:last-used"
PRIVATE_POOLS = "farm:private"
CREDENTIAL_LIMITS = "farm:credential-limits"
SIGN_INS = "farm:sign-ins"
FILES = "farm:files"
EXPIRING_FILES = "farm:files:expiring"
FILE_BYTES = "farm:files:bytes"
RESERVED_FILES = "farm:files:reserved"
FILE_SUMS = "farm:files:sums"
FILE_STORE_TROUBLE = "farm:files:trouble"
FILE_STORE_PROBE = "farm:files:probe"
FILES_LEASE = "farm:files:lease"
FILE_STORE_ID = "farm:files:store"
BATCHES = "farm:batches"
ACTIVE_BATCHES = "farm:batches:active"

#: Set by `rq suspend` (rq.suspension.WORKERS_SUSPENDED).
RQ_SUSPENDED = "rq:suspended"


def recent_requests(key_id: str) -> str:
    return f"farm:limit:requests:{key_id}"


def recent_tokens(key_id: str) -> str:
    return f"farm:limit:tokens:{key_id}"


def running_requests(key_id: str) -> str:
    return f"farm:limit:running:{key_id}"


def started_requests(key_id: str) -> str:
    return f"farm:limit:started:{key_id}"


def held_requests(key_id: str) -> str:
    """Also the prefix of the lists of its bands and pools."""
    return f"farm:limit:held:{key_id}"


def refusals(key_id: str, at: int) -> str:
    """`at` is the start of the slot in seconds since the epoch."""
    return f"farm:refusals:{key_id}:{at}"


def limits_in_force(key_id: str) -> str:
    return f"farm:limit:limits:{key_id}"


def quota(key_id: str) -> str:
    return f"farm:quota:{key_id}"


def fair_queue(pool: str) -> str:
    """Also the prefix of the keys of the pool's bands and API keys."""
    return f"farm:fair:{pool}"


def waiting_retries(pool: str) -> str:
    return f"farm:fair:{pool}:retries"


def waiting_batch_retries(pool: str) -> str:
    return f"farm:fair:{pool}:retries:batch"


def resting_by_pool(pool: str) -> str:
    return f"farm:fair:{pool}:resting"


def set_aside(pool: str, band: str) -> str:
    """Also the prefix of the keys of its models."""
    return f"farm:fair:{pool}:aside:{band}"


def resting_models(credential_id: str) -> str:
    return f"farm:resting-models:{credential_id}"


def account_limits(pool: str) -> str:
    """A configured pool and its private credentials share one upstream; so does the next."""
    return f"farm:account-limits:{names.configured_pool(pool)}"


def limit_trial(pool: str) -> str:
    return f"farm:account-limits:{names.configured_pool(pool)}:trial"


def idle_workers(pool: str) -> str:
    return f"farm:idle:{pool}"


def log_batch_mark(batch: str) -> str:
    return f"farm:log:{batch}"


def usage_hour(at: int | str) -> str:
    """`at` is the start of the hour in seconds since the epoch; '' gives the prefix."""
    return f"farm:usage:hour:{at}"


def usage_day(at: int | str) -> str:
    """`at` is the start of the UTC day in seconds since the epoch; '' gives the prefix."""
    return f"farm:usage:day:{at}"


def key_days(key_id: str) -> str:
    return f"farm:usage:key:{key_id}"


def credentials(pool: str) -> str:
    return f"farm:credentials:{pool}"


def credential(credential_id: str) -> str:
    return f"farm:credential:{credential_id}"


def removed(credential_id: str) -> str:
    return f"farm:removed:{credential_id}"


def history(credential_id: str) -> str:
    return f"farm:history:{credential_id}"


def activity(credential_id: str) -> str:
    return f"farm:activity:{credential_id}"


def rq_worker(name: str) -> str:
    """RQ's record of a worker (rq.worker.BaseWorker.key)."""
    return f"rq:worker:{name}"


def fingerprints(pool: str) -> str:
    """A configured pool and its private credentials share one hash."""
    return f"farm:fingerprints:{names.configured_pool(pool)}"


def accounts(pool: str) -> str:
    return f"farm:accounts:{pool}"


def sign_in(sign_in_id: str) -> str:
    return f"farm:sign-in:{sign_in_id}"


def sign_in_state(digest: str) -> str:
    return f"farm:sign-in:state:{digest}"


def sign_in_poll(sign_in_id: str) -> str:
    return f"farm:sign-in:poll:{sign_in_id}"


def refused_token(fingerprint: str) -> str:
    return f"farm:private:refused:{fingerprint}"


def token_tries(network: str) -> str:
    return f"farm:private:tries:{network}"


def lease(credential_id: str) -> str:
    return f"farm:lease:{credential_id}"


def pace(credential_id: str) -> str:
    """Also the prefix of the keys of the account's limits."""
    return f"farm:pace:{credential_id}"


def pace_keys(credential_id: str) -> tuple[str, ...]:
    """All keys of an account's pace."""
    base = pace(credential_id)
    return base, f"{base}:rpm", f"{base}:tpm", f"{base}:rpd"


def alert_delivery(receiver: str) -> str:
    return f"farm:alerts:delivery:{receiver}"


def process(process_id: str) -> str:
    return f"farm:process:{process_id}"


def key_seconds(pool: str, slot: int) -> str:
    return f"farm:shares:{pool}:{slot}"


def samples(step: int) -> str:
    """`step` is the number of seconds between two samples."""
    return f"farm:samples:{step}"


def account_seconds(hour: int) -> str:
    """`hour`: its first second."""
    return f"farm:account-seconds:{hour}"


def bulk_operation(operation_id: str) -> str:
    return f"farm:bulk:{operation_id}"


def bulk_results(operation_id: str) -> str:
    return f"farm:bulk:{operation_id}:results"


def tape(process_id: str) -> str:
    return f"farm:tape:{process_id}"


def operations(process_id: str) -> str:
    return f"farm:errands:{process_id}"


def operation_result(operation_id: str) -> str:
    return f"farm:errand:{operation_id}"


def front_channel(front: str) -> str:
    return f"farm:front:{front}"


def front_gone(front: str) -> str:
    return f"farm:gone:{front}"


def body(request_id: str) -> str:
    return f"farm:body:{request_id}"


def upload(request_id: str) -> str:
    return f"farm:upload:{request_id}"


def answer(name: str) -> str:
    return f"farm:answer:{name}"


def answer_upload(request_id: str, name: str) -> str:
    return f"farm:answer-upload:{request_id}:{name}"


def run_export(request_id: str, name: str) -> str:
    return f"farm:run-export:{request_id}:{name}"


def shared_run(name: str) -> str:
    return f"farm:run:{name}"


def creation(name: str) -> str:
    return f"farm:creation:{name}"


def stream_options_refused(pool: str) -> str:
    return f"farm:stream-options-refused:{pool}"


def breaker(pool: str) -> str:
    return f"farm:breaker:{pool}"


def paused(pool: str) -> str:
    """A configured pool and its private credentials are paused together."""
    return f"farm:paused:{names.configured_pool(pool)}"


def probe(pool: str) -> str:
    return f"farm:probe:{pool}"


def token_breaker(pool: str) -> str:
    """A configured pool and its private credentials share one token endpoint; so do the next three."""
    return f"farm:token-breaker:{names.configured_pool(pool)}"


def token_probe(pool: str) -> str:
    return f"farm:token-probe:{names.configured_pool(pool)}"


def token_failures(pool: str) -> str:
    return f"farm:token-failures:{names.configured_pool(pool)}"


def token_granted(pool: str) -> str:
    return f"farm:token-granted:{names.configured_pool(pool)}"


def served_jobs(pool: str) -> str:
    return f"farm:served:{pool}"


def models(pool: str) -> str:
    return f"farm:models:{pool}"


def admin_session(digest: str) -> str:
    return f"farm:admin-session:{digest}"


def models_renewal(pool: str) -> str:
    return f"farm:models-renewal:{pool}"


def failed_logins(network: str) -> str:
    return f"farm:logins:{network}"


def reply_channel(front: str, request_id: str) -> str:
    return f"farm:reply:{front}:{request_id}"


def counted(source: str) -> str:
    return f"farm:counted:{source}"


def file(file_id: str) -> str:
    return f"farm:file:{file_id}"


def files(key_id: str) -> str:
    return f"farm:files:{key_id}"


def batch(batch_id: str) -> str:
    return f"farm:batch:{batch_id}"


def batch_lease(batch_id: str) -> str:
    return f"farm:batch:{batch_id}:lease"


def batch_running(batch_id: str) -> str:
    return f"farm:batch:{batch_id}:running"


def batch_done(batch_id: str) -> str:
    return f"farm:batch:{batch_id}:done"


def batch_results(batch_id: str) -> str:
    return f"farm:batch:{batch_id}:results"


def batches(key_id: str) -> str:
    return f"farm:batches:{key_id}"


def active_batches(key_id: str) -> str:
    return f"farm:batches:active:{key_id}"
