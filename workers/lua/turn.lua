-- Ends a worker's job, begins its next, or both: all of RQ's bookkeeping in one round trip.
-- Stands for BaseWorker.handle_job_success with result_ttl=0, cleanup_execution, set_state, and for
-- rq.executions.prepare_execution and BaseWorker.prepare_job_execution (RQ 3.0).
-- KEYS: queue, intermediate queue, started registry, worker, the worker's executions, lease, the pool's breaker,
--       count of served jobs
-- ARGV: now (ISO), now (seconds),
--       the job that ends ('' for none), its execution id, 'successful_job_count' or 'failed_job_count', seconds worked,
--       the job to begin ('' for none, '*' for the next in the queue), its new execution id, worker name,
--       time to live of the execution, of the worker, what the lease must hold, '1' for a probe,
--       prefix of RQ's keys, of bodies
-- Keys of jobs are made from their ids here, because the next job is not known before.
-- Asked again with the same execution ids, it answers the same and does nothing twice.
-- Result: {1 when the job was ended by this execution, what was begun}: false for nothing; 'gone' when the job is, or was
--         put back; 'not yours' without the lease and 'not now' with an open breaker, a named job is put back; else
--         {job id, data, retries, executions that the worker has already, body or false}
local queue, intermediate, started, worker, executions = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local iso, now = ARGV[1], ARGV[2]

local function job_keys(job, execution)
    local rq, composite = ARGV[14], job .. ':' .. execution
    return rq .. ':job:' .. job, ARGV[15] .. job, rq .. ':execution:' .. composite, rq .. ':executions:' .. job, composite
end

local function finish(job, execution, counter, seconds)
    local hash, body, mine, all, composite = job_keys(job, execution)
    redis.call('DEL', mine)
    redis.call('SREM', executions, composite)
    if redis.call('ZREM', started, composite) == 0 then
        return 0
    end
    redis.call('DEL', hash, body, all, hash .. ':dependents', hash .. ':dependencies')
    redis.call('INCR', KEYS[8])
    if redis.call('EXISTS', worker) == 1 then
        redis.call('HINCRBY', worker, counter, 1)
        redis.call('HINCRBYFLOAT', worker, 'total_working_time', seconds)
        redis.call('HSET', worker, 'state', 'idle', 'last_heartbeat', iso)
    end
    return 1
end

-- Why no job may begin: only who holds the credential's lease may (I3), and only a probe while the breaker is open.
local function refusal()
    if redis.call('GET', KEYS[6]) ~= ARGV[12] then
        return 'not yours'
    elseif ARGV[13] ~= '1' and redis.call('EXISTS', KEYS[7]) == 1 then
        return 'not now'
    end
    return false
end

-- What RQ notes of a job that a worker has. Nil for one that was withdrawn or whose web process has died.
local function start(job, execution)
    local hash, body, mine, all, composite = job_keys(job, execution)
    local found = redis.call('HMGET', hash, 'data', 'number_of_retries', 'farm_front', 'farm_cancelled')
    if not found[1] or found[4] or (found[3] and redis.call('EXISTS', found[3]) == 1) then
        redis.call('DEL', hash, body)
        return nil
    end
    local ttl = ARGV[10]
    redis.call('SREM', executions, composite)
    local running = redis.call('SCARD', executions)
    redis.call('HSET', mine, 'id', execution, 'job_id', job, 'created_at', now, 'last_heartbeat', now,
        'worker_name', ARGV[9])
    redis.call('EXPIRE', mine, ttl)
    redis.call('ZADD', all, now + ttl + 60, execution)
    redis.call('EXPIRE', all, ttl + 60)
    redis.call('ZADD', started, now + ttl, composite)
    redis.call('SADD', executions, composite)
    redis.call('EXPIRE', executions, ttl)
    redis.call('HSET', worker, 'state', 'busy', 'last_heartbeat', iso)
    redis.call('EXPIRE', worker, ARGV[11])
    redis.call('HSET', hash, 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', ARGV[9])
    redis.call('PERSIST', hash)
    return {job, found[1], found[2] or '0', running, redis.call('GET', body)}
end

-- A job that BLMOVE put into the intermediate queue; one that was put back meanwhile is another's.
local function begin(job, execution)
    local _, _, mine, all, composite = job_keys(job, execution)
    if redis.call('LREM', intermediate, 1, job) == 0 and redis.call('EXISTS', mine) == 0 then
        return 'gone'
    end
    local refused = refusal()
    if not refused then
        return start(job, execution) or 'gone'
    end
    redis.call('DEL', mine, all)
    redis.call('SREM', executions, composite)
    redis.call('ZREM', started, composite)
    redis.call('LPUSH', queue, job)
    return refused
end

-- The first job of the queue that somebody waits for. One that this execution has already is given again.
local function take(execution)
    if refusal() then
        return false
    end
    for _, composite in ipairs(redis.call('SMEMBERS', executions)) do
        if composite:sub(-#execution) == execution then
            return start(composite:sub(1, -#execution - 2), execution) or false
        end
    end
    while true do
        local job = redis.call('LPOP', queue)
        if not job then
            return false
        end
        local begun = start(job, execution)
        if begun then
            return begun
        end
    end
end

local ended, begun = 0, false
if ARGV[3] ~= '' then
    ended = finish(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
end
if ARGV[7] == '*' then
    begun = take(ARGV[8])
elseif ARGV[7] ~= '' then
    begun = begin(ARGV[7], ARGV[8])
end
return {ended, begun}
