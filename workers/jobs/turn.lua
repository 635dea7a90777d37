-- Finishes a worker's job, begins its next one, or both: all of RQ's bookkeeping in one round trip.
-- Stands for BaseWorker.handle_job_success with result_ttl=0, cleanup_execution, set_state, and for
-- rq.executions.prepare_execution and BaseWorker.prepare_job_execution (RQ 3.0).
-- Runs after limits.lua, fair.lua, model_queues.lua, ending.lua, retries.lua, model_rests.lua, pace.lua and rests.lua: settles the
-- finished job's usage with its API key, and picks
-- the next job: one that waits for a credential which has not tried it, else the next in fair order. A job that BLMOVE has
-- moved only tells that there is work; another one may be next.
-- Idempotent: a retry with the same execution ids changes nothing and gets the same result.
-- Job keys are built from ids here, because the next job is not known in advance.
-- KEYS:  1 interactive queue    2 batch queue    3 intermediate queue
--        4, 5 started registry of the interactive and of the batch band
--        6 worker    7 the worker's executions    8 lease    9 the pool's breaker    10 count of served jobs
--       11 the pool's fair queue    12 its idle workers    13 request log    14 its credentials    15 mark of its pause
-- ARGV:  1 now (ISO)    2 now (seconds)
--        3 job to finish ('' for none)    4 its execution id    5 'successful_job_count' or 'failed_job_count'
--        6 seconds worked    7 tokens used    8 '1' when it counts towards the quota of requests
--        9 job to begin: '' for none, '*' for the next, or the id that BLMOVE has moved    10 its new execution id
--       11 worker name    12 TTL of the execution    13 TTL of the worker    14 value of the lease    15 '1' for a probe, 'trial' for
--          one by a credential that rests as a whole because of a model
--       16 prefix of RQ's keys    17 prefix of body keys
--       18 seconds after which a batch request is due    19 one in how many jobs is then a batch request
--       20 the finished job's entry in the request log ('' for none)    21 its band
--       22 prefix of leases    23 prefix of credentials' hashes    24 seconds for which a request may wait
--       25 limits of the account ('' for none, pace.lua)    26 base of the account's pace ('' with no limits)
--       27 seconds since the finished job's request was sent, negative if it never was    28 prefix of histories
-- Result: {1 if this execution has finished the job, else 0; what was begun}, the latter
--         false: nothing is queued, and the worker is marked as idle, but for a trial;
--         'idle <seconds>': the same, and its credential's first rest for a model ends in so many seconds: look again;
--         {'rest', seconds, limit}: the account has to rest by that limit; a moved job is put back;
--         'not yours': the lease is lost, 'not now': the breaker is open, or 'paused': the pool is; a moved job is put back in
--         each of these cases;
--         {job id, data, retries, other executions of the worker, body, band, failed attempts so far, whose requests were
--         ahead at admission}, the body as a number if it is so large that it is to be read apart, and false if it is gone
local intermediate, worker, executions, idle = KEYS[3], KEYS[6], KEYS[7], KEYS[12]
local registries = {interactive = KEYS[4], batch = KEYS[5]}
local iso_now, now, worker_name = ARGV[1], tonumber(ARGV[2]), ARGV[11]
local pool = {base = KEYS[11], interactive = KEYS[1], batch = KEYS[2], intermediate = intermediate, idle = idle, jobs = ARGV[16] .. ':job:',
    credentials = KEYS[14], leases = ARGV[22], records = ARGV[23], patience = tonumber(ARGV[24]), histories = ARGV[28]}
local pace = open_pace(ARGV[26], ARGV[25])

-- Whether the worker has finished its job and not started another.
local is_idle = false

local function job_keys(job, execution)
    local rq, composite = ARGV[16], job .. ':' .. execution
    return pool.jobs .. job, ARGV[17] .. job, rq .. ':execution:' .. composite, rq .. ':executions:' .. job, composite
end

local function finish(job, execution, counter, seconds)
    local hash, _, execution_key, job_executions, composite = job_keys(job, execution)
    redis.call('SREM', executions, composite)
    local has_worker = redis.call('EXISTS', worker) == 1
    is_idle = has_worker
    if redis.call('ZREM', registries[ARGV[21]], composite) == 0 then
        redis.call('DEL', execution_key)
        return 0
    end
    if pace then
        settle_execution_pace(pace, execution_key, tonumber(ARGV[27]), tonumber(ARGV[7]))
    end
    local owner = read_owner(hash)
    if not owner.settled then
        record_worked_time(pool, owner, seconds)
        if owner.limited then
            end_usage(owner.key, job, tonumber(ARGV[7]), ARGV[8] == '1')
        end
        if ARGV[20] ~= '' then
            redis.call('XADD', KEYS[13], '*', 'e', ARGV[20])
        end
    end
    redis.call('DEL', execution_key, hash, job_executions, hash .. ':dependents', hash .. ':dependencies')
    delete_body(job)
    redis.call('INCR', KEYS[10])
    if has_worker then
        redis.call('HINCRBY', worker, counter, 1)
        redis.call('HINCRBYFLOAT', worker, 'total_working_time', seconds)
    end
    return 1
end

-- Whether the breaker is open, the pool paused, retries wait or a credential rests for a model, which is rare: one command
-- tells for all.
local is_unusual = false
-- The models for which the worker's credential rests, when the first of these rests ends, and the jobs set aside because of them.
local rests, first_rest_end, sweep = {}, nil, {count = 0, jobs = {}, keys = {}, new_models = {}}

local function look_for_the_unusual()
    is_unusual = redis.call('EXISTS', KEYS[9], KEYS[15], retries_key(pool, INTERACTIVE), retries_key(pool, BATCH),
        resting_key(pool)) > 0
    if is_unusual and redis.call('EXISTS', resting_key(pool)) == 1 then
        load_models(pool, now)
        rests, first_rest_end = read_rests(credential_of(worker_name), now)
    end
end

-- Why no job may begin: the worker must hold the credential's lease (I3), a paused pool lets nothing through, and an open
-- breaker only a probe.
local function find_refusal()
    if redis.call('GET', KEYS[8]) ~= ARGV[14] then
        return 'not yours'
    elseif is_unusual and redis.call('EXISTS', KEYS[15]) == 1 then
        return 'paused'
    elseif is_unusual and ARGV[15] ~= '1' and redis.call('EXISTS', KEYS[9]) == 1 then
        return 'not now'
    end
    return false
end

-- Takes a job that RQ lists out of the batch queue, unless it waits for another credential: find_retry has passed it over.
local function pop_foreign()
    local job = redis.call('LPOP', pool.batch)
    local lined = job and redis.call('HGET', pool.jobs .. job, 'farm_lined')
    if lined == RETRY or lined == ASIDE then
        redis.call('RPUSH', pool.batch, job)
        return nil
    end
    return job
end

local function is_lined(job)
    local lined = redis.call('HGET', pool.jobs .. job, 'farm_lined')
    return lined == '1' or lined == RETRY or lined == ASIDE
end

-- The pool's next job that the credential may run, or nil.
local function find_next()
    local retry, batch_retry
    if is_unusual then
        local credential = credential_of(worker_name)
        retry = find_retry(pool, INTERACTIVE, credential, now, rests)
        batch_retry = not retry and find_retry(pool, BATCH, credential, now, rests)
    end
    if retry then
        return retry
    end
    local peek = pool.models and peek_allowed or peek_band
    local interactive = peek(pool, INTERACTIVE, rests, sweep)
    return select_next(pool, now, tonumber(ARGV[18]), tonumber(ARGV[19]), interactive,
        batch_retry or peek(pool, BATCH, rests, sweep))
end

-- Takes the next job out of its queue; returns it and its place in the fair queue. A job without one, because RQ itself or
-- an operator has enqueued it, is next when it reaches the front of RQ's queue.
local function take_next(moved)
    local head = find_next()
    if moved and sweep.jobs[moved] then
        moved = nil
    end
    if head and head.is_retry then
        remove_retry(pool, head.job)
        return head.job, head
    elseif head and head.model then
        return head.job, head
    elseif sweep.is_truncated and not head then
        return nil
    end
    local list = pool[head and head.band or INTERACTIVE]
    local front = moved or redis.call('LPOP', list)
    if front and head and head.job == front then
        return front, head
    elseif front and not (head and is_lined(front)) then
        return front
    elseif front and not moved then
        redis.call('LPUSH', list, front)
    end
    if not head then
        return pop_foreign()
    end
    if not remove_from_rq(pool, head.band, head.job) then
        redis.call('LREM', intermediate, 1, head.job)
    end
    return head.job, head
end

-- Bytes of a body that is part of the reply.
local MAX_INLINE_BYTES = 65536

local function read_small_body(name)
    local body = redis.call('GETRANGE', name, 0, MAX_INLINE_BYTES)
    if #body > MAX_INLINE_BYTES then
        return redis.call('STRLEN', name)
    end
    return body ~= '' and body or redis.call('GET', name)
end

-- Records a job as started, as RQ does, and charges its API key. Deletes it and returns nil when it was cancelled, by its
-- front or by RQ's Job.cancel, or when its front has died. Holds it and returns nil when its key has no slot left; a job
-- that RQ itself or an operator has enqueued starts all the same.
local function start(job, execution, head, other_executions)
    local hash, body, execution_key, job_executions, composite = job_keys(job, execution)
    local fields = redis.call('HMGET', hash, 'data', 'number_of_retries', 'farm_front', 'farm_cancelled', 'farm_band',
        'status', 'farm_tried', 'farm_limited', 'farm_key', 'farm_lined', 'farm_ahead')
    local ttl, band = ARGV[12], fields[5] or INTERACTIVE
    if not fields[1] or fields[4] or fields[6] == 'canceled' or (fields[3] and redis.call('EXISTS', fields[3]) == 1) then
        if head and not head.is_retry then
            unlist_aside(pool, head)
            drop_head(pool, head)
        end
        release_waiting_job(pool, hash, job)
        redis.call('DEL', hash, execution_key, job_executions)
        delete_body(job)
        redis.call('SREM', executions, composite)
        redis.call('ZREM', registries[band], composite)
        return nil
    end
    if fields[8] and not claim_slot(fields[9], job, now, pool.jobs) and head and not head.is_retry then
        hold_back(pool, band, fields[9], now)
        return nil
    end
    if fields[10] == HELD then
        remove_held(pool, band, fields[9], job)
    end
    unlist_aside(pool, head)
    -- On a retry of this script the execution has been counted already.
    local counted = pace and pace.logs and count_pace(pace)
    local charge = head and (head.is_retry and charge_retry or dequeue_and_charge)
    local cost = charge and charge(pool, head)
    if cost then
        sync_tags(pool, head.band, head.key)
    end
    redis.call('HSET', execution_key, 'id', execution, 'job_id', job, 'created_at', ARGV[2], 'last_heartbeat', ARGV[2],
        'worker_name', worker_name, 'farm_lease', ARGV[14], unpack(counted and {'farm_paced', counted} or {}))
    redis.call('EXPIRE', execution_key, ttl)
    redis.call('ZADD', job_executions, now + ttl + 60, execution)
    redis.call('EXPIRE', job_executions, ttl + 60)
    redis.call('ZADD', registries[band], now + ttl, composite)
    redis.call('SADD', executions, composite)
    redis.call('EXPIRE', executions, ttl)
    redis.call('HSET', worker, 'state', 'busy', 'last_heartbeat', iso_now)
    redis.call('EXPIRE', worker, ARGV[13])
    is_idle = false
    redis.call('HSET', hash, 'status', 'started', 'started_at', iso_now, 'last_heartbeat', iso_now,
        'worker_name', worker_name, 'farm_lined', '', unpack(cost and {'farm_cost', cost} or {}))
    redis.call('PERSIST', hash)
    return {job, fields[1], fields[2] or '0', other_executions, read_small_body(body), band, fields[7] or '', fields[11] or ''}
end

-- The job that this execution has started already (on a retry), and how many other executions the worker has.
local function find_started_job(execution)
    local members = redis.call('SMEMBERS', executions)
    for _, composite in ipairs(members) do
        if composite:sub(-#execution) == execution then
            return composite:sub(1, -#execution - 2), #members - 1
        end
    end
    return nil, #members
end

-- Puts a started job back to the front of its queue as if it had not been started.
local function put_back(job, execution)
    local hash, _, execution_key, job_executions, composite = job_keys(job, execution)
    local owner = read_owner(hash)
    redis.call('DEL', execution_key, job_executions)
    redis.call('SREM', executions, composite)
    redis.call('ZREM', registries[owner.band], composite)
    if redis.call('HEXISTS', hash, 'farm_tried') == 1 then
        record_worked_time(pool, owner, 0)
        park(pool, job, now)
        return
    end
    if owner.key then
        record_worked_time(pool, owner, 0)
        rejoin_queue(pool, owner.band, owner.key, job, true)
        redis.call('HSET', hash, 'farm_lined', 1)
    end
    push_to_rq(pool, owner.band, job, now, 'LPUSH')
end

-- What is said to a worker that finds nothing to do.
local function describe_wait()
    if sweep.is_truncated then
        return 'idle 0'
    end
    return first_rest_end and string.format('idle %.3f', first_rest_end - now) or false
end

-- Tells idle workers of jobs that only they may run: of models that had none set aside before, and of the job's own model if
-- it leaves any.
local function wake_for_models(head)
    if head and head.model then
        sweep.new_models[head.model] = true
    end
    for model in pairs(sweep.new_models) do
        if redis.call('EXISTS', aside_tags(pool, INTERACTIVE, model), aside_tags(pool, BATCH, model)) > 0 then
            wake_able(pool, model, now)
        end
    end
end

-- Lets held requests of the keys whose jobs were set aside have their places in the queue; returns whether there were any.
local function release_places()
    local has_released = false
    for key in pairs(sweep.keys) do
        has_released = release_held(key, read_limit_clock({})) or has_released
    end
    sweep.keys = {}
    return has_released
end

-- The rest that the account has to take now; nil if it may take a job.
local function take_rest(moved)
    local rest_until, limit = find_pace_rest(pace)
    local credential = credential_of(worker_name)
    if not limit then
        end_published_rest(pool, pace, credential)
        return nil
    end
    if moved then
        redis.call('LPUSH', pool.interactive, moved)
    end
    redis.call('ZREM', idle, worker_name)
    publish_rest(pool, pace, credential, rest_until, limit)
    return {'rest', string.format('%.3f', (rest_until - pace.now) / 1000), limit}
end

local function begin(requested, execution)
    local previous, other_executions = find_started_job(execution)
    local moved = requested ~= '*' and redis.call('LREM', intermediate, 1, requested) > 0 and requested
    local refusal = find_refusal()
    if refusal then
        if moved then
            redis.call('LPUSH', pool.interactive, moved)
        end
        if previous then
            put_back(previous, execution)
        end
        return refusal
    end
    local restarted = previous and start(previous, execution, nil, other_executions)
    if restarted then
        return restarted
    end
    local rest = pace and take_rest(moved)
    if rest then
        return rest
    end
    while true do
        local job, head = take_next(moved)
        if moved and job ~= moved and not sweep.jobs[moved] then
            redis.call('LPUSH', pool.interactive, moved)
        end
        moved = false
        if not job and not release_places() then
            if ARGV[15] ~= 'trial' and not sweep.is_truncated then
                redis.call('ZREMRANGEBYSCORE', idle, '-inf', now - IDLE_TTL_SECONDS)
                redis.call('ZADD', idle, now, worker_name)
            end
            wake_for_models()
            return describe_wait()
        end
        local started_job = job and start(job, execution, head, other_executions)
        if started_job then
            -- A worker that has just finished a job was not idle.
            if ARGV[3] == '' then
                redis.call('ZREM', idle, worker_name)
            end
            release_places()
            wake_for_models(head)
            return started_job
        end
    end
end

local has_finished, begin_result = 0, false
if ARGV[9] ~= '' then
    look_for_the_unusual()
end
if ARGV[3] ~= '' then
    has_finished = finish(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
end
if ARGV[9] ~= '' then
    begin_result = begin(ARGV[9], ARGV[10])
end
if is_idle then
    redis.call('HSET', worker, 'state', 'idle', 'last_heartbeat', iso_now)
end
return {has_finished, begin_result}
