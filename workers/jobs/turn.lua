-- Ends a worker's job, begins its next, or both: all of RQ's bookkeeping in one round trip.
-- Stands for BaseWorker.handle_job_success with result_ttl=0, cleanup_execution, set_state, and for
-- rq.executions.prepare_execution and BaseWorker.prepare_job_execution (RQ 3.0).
-- Comes after limits.lua, fair.lua and ending.lua: what the job that ends has used is settled with its API key, and the one
-- that begins is the one whose turn it is. A job that BLMOVE handed over says only that there is one.
-- KEYS: queue of the interactive band, of batch, intermediate queue, started registry of either, worker, the worker's
--       executions, lease, the pool's breaker, count of served jobs, the pool's fair queue, its workers that wait, request log
-- ARGV: now (ISO), now (seconds),
--       the job that ends ('' for none), its execution id, 'successful_job_count' or 'failed_job_count', seconds worked,
--       tokens that it has used, '1' when it counts for its key's quota of requests,
--       '' to begin none, '*' for the next, or the job that BLMOVE moved; its new execution id, worker name,
--       time to live of the execution, of the worker, what the lease must hold, '1' for a probe,
--       prefix of RQ's keys, of bodies, seconds after which a batch request is due, of how many turns it then gets one,
--       the ended job's entry in the request log, '' for none, and its band
-- Keys of jobs are made from their ids here, because the next job is not known before.
-- Asked again with the same execution ids, it answers the same and does nothing twice.
-- Result: {1 when the job was ended by this execution, what was begun}: false for nothing, when the worker is noted as
--         waiting; 'not yours' without the lease and 'not now' with an open breaker, a job handed over is put back; else
--         {job id, data, retries, executions that the worker has already, body or false, band}
local intermediate, worker, executions, idle = KEYS[3], KEYS[6], KEYS[7], KEYS[12]
local started = {interactive = KEYS[4], batch = KEYS[5]}
local iso, now, name = ARGV[1], tonumber(ARGV[2]), ARGV[11]
local pool = {base = KEYS[11], interactive = KEYS[1], batch = KEYS[2], idle = idle, jobs = ARGV[16] .. ':job:'}

-- Whether the worker's job has ended and no other has begun yet.
local idles = false

local function job_keys(job, execution)
    local rq, composite = ARGV[16], job .. ':' .. execution
    return pool.jobs .. job, ARGV[17] .. job, rq .. ':execution:' .. composite, rq .. ':executions:' .. job, composite
end

local function finish(job, execution, counter, seconds)
    local hash, body, mine, all, composite = job_keys(job, execution)
    redis.call('SREM', executions, composite)
    local there = redis.call('EXISTS', worker) == 1
    idles = there
    if redis.call('ZREM', started[ARGV[21]], composite) == 0 then
        redis.call('DEL', mine)
        return 0
    end
    local whose = read_owner(hash)
    if not whose.settled then
        record_worked_time(pool, whose, seconds)
        if whose.limited then
            settle_usage(whose.key, job, tonumber(ARGV[7]), ARGV[8] == '1')
        end
        if ARGV[20] ~= '' then
            redis.call('XADD', KEYS[13], '*', 'e', ARGV[20])
        end
    end
    redis.call('DEL', mine, hash, body, all, hash .. ':dependents', hash .. ':dependencies')
    redis.call('INCR', KEYS[10])
    if there then
        redis.call('HINCRBY', worker, counter, 1)
        redis.call('HINCRBYFLOAT', worker, 'total_working_time', seconds)
    end
    return 1
end

-- Why no job may begin: only who holds the credential's lease may (I3), and only a probe while the breaker is open.
local function refusal()
    if redis.call('GET', KEYS[8]) ~= ARGV[14] then
        return 'not yours'
    elseif ARGV[15] ~= '1' and redis.call('EXISTS', KEYS[9]) == 1 then
        return 'not now'
    end
    return false
end

-- The next job, out of every queue, and whose turn it is. Those that stand in no line, because RQ itself or a person put
-- them into the queue, go when they are at its front.
local function choose(held)
    local turn = select_next(pool, now, tonumber(ARGV[18]), tonumber(ARGV[19]))
    local list = pool[turn and turn.band or INTERACTIVE]
    local front = held or redis.call('LPOP', list)
    if front and turn and turn.job == front then
        return front, turn
    elseif front and not (turn and redis.call('HGET', pool.jobs .. front, 'farm_lined') == '1') then
        return front
    elseif front and not held then
        redis.call('LPUSH', list, front)
    end
    if not turn then
        return redis.call('LPOP', pool.batch)
    end
    if not remove_from_rq(pool, turn.band, turn.job) then
        redis.call('LREM', intermediate, 1, turn.job)
    end
    return turn.job, turn
end

-- What RQ notes of a job that a worker has, and its key is charged for. Nil for one that was withdrawn, by its front or by
-- RQ's Job.cancel, or whose web process has died.
local function start(job, execution, turn, running)
    local hash, body, mine, all, composite = job_keys(job, execution)
    local found = redis.call('HMGET', hash, 'data', 'number_of_retries', 'farm_front', 'farm_cancelled', 'farm_band',
        'status')
    local ttl, band = ARGV[12], found[5] or INTERACTIVE
    if not found[1] or found[4] or found[6] == 'canceled' or (found[3] and redis.call('EXISTS', found[3]) == 1) then
        if turn then
            drop_head(pool, turn)
        end
        release_waiting_job(pool, hash, job)
        redis.call('DEL', hash, body, mine, all)
        redis.call('SREM', executions, composite)
        redis.call('ZREM', started[band], composite)
        return nil
    end
    local cost = turn and dequeue_and_charge(pool, turn)
    redis.call('HSET', mine, 'id', execution, 'job_id', job, 'created_at', ARGV[2], 'last_heartbeat', ARGV[2],
        'worker_name', name)
    redis.call('EXPIRE', mine, ttl)
    redis.call('ZADD', all, now + ttl + 60, execution)
    redis.call('EXPIRE', all, ttl + 60)
    redis.call('ZADD', started[band], now + ttl, composite)
    redis.call('SADD', executions, composite)
    redis.call('EXPIRE', executions, ttl)
    redis.call('HSET', worker, 'state', 'busy', 'last_heartbeat', iso)
    redis.call('EXPIRE', worker, ARGV[13])
    idles = false
    redis.call('HSET', hash, 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', name,
        'farm_lined', '', unpack(cost and {'farm_cost', cost} or {}))
    redis.call('PERSIST', hash)
    return {job, found[1], found[2] or '0', running, redis.call('GET', body), band}
end

-- The job that this execution has already, should it be asked for again, and how many other executions the worker has.
local function had(execution)
    local members = redis.call('SMEMBERS', executions)
    for _, composite in ipairs(members) do
        if composite:sub(-#execution) == execution then
            return composite:sub(1, -#execution - 2), #members - 1
        end
    end
    return nil, #members
end

-- It goes back to the front of its queue, as if it had not been begun.
local function put_back(job, execution)
    local hash, _, mine, all, composite = job_keys(job, execution)
    local whose = read_owner(hash)
    redis.call('DEL', mine, all)
    redis.call('SREM', executions, composite)
    redis.call('ZREM', started[whose.band], composite)
    if whose.key then
        record_worked_time(pool, whose, 0)
        rejoin_queue(pool, whose.band, whose.key, job, true)
        redis.call('HSET', hash, 'farm_lined', 1)
    end
    push_to_rq(pool, whose.band, job, now, 'LPUSH')
end

local function begin(moved, execution)
    local before, running = had(execution)
    local held = moved ~= '*' and redis.call('LREM', intermediate, 1, moved) > 0 and moved
    local refused = refusal()
    if refused then
        if held then
            redis.call('LPUSH', pool.interactive, held)
        end
        if before then
            put_back(before, execution)
        end
        return refused
    end
    local again = before and start(before, execution, nil, running)
    if again then
        return again
    end
    while true do
        local job, turn = choose(held)
        if job ~= held and held then
            redis.call('LPUSH', pool.interactive, held)
        end
        held = false
        if not job then
            redis.call('ZREMRANGEBYSCORE', idle, '-inf', now - IDLE_TTL_SECONDS)
            redis.call('ZADD', idle, now, name)
            return false
        end
        local begun = start(job, execution, turn, running)
        if begun then
            -- A worker that has just ended a job did not wait.
            if ARGV[3] == '' then
                redis.call('ZREM', idle, name)
            end
            return begun
        end
    end
end

local ended, begun = 0, false
if ARGV[3] ~= '' then
    ended = finish(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
end
if ARGV[9] ~= '' then
    begun = begin(ARGV[9], ARGV[10])
end
if idles then
    redis.call('HSET', worker, 'state', 'idle', 'last_heartbeat', iso)
end
return {ended, begun}
