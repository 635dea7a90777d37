-- Held requests: admitted ones that wait because their API key has reached its limit of concurrency, of requests or of
-- tokens per minute. Functions for the scripts that admit, start and end requests. Comes after limits.lua, fair.lua and
-- bodies.lua.
-- They wait in order of arrival in a queue of their key, pool and band, outside the pool's queue: they wake no worker,
-- and take no place there. Whatever ends a request of the key moves the next one into the pool's queue. When the window
-- of a minute has moved on, which nobody tells Redis, the front of the next request does (release_held.lua).
-- A request that waits in a pool's queue holds no slot of the concurrency limit, or those of a pool whose upstream is
-- down would keep the key's other pools idle (I2). It takes one when it starts, and keeps it while it is retried. So
-- that a key does not overrun the pool's queue, only as many wait there as may start. Of the requests that are set aside
-- (model_queues.lua) only as many per model: those of a model that nobody may run must not hold back the others.
-- A job's `farm_lined` is 'held' meanwhile, and RQ's deferred registry of its queue lists it.
local HELD = 'held'
-- Seconds after which a front checks again in any case: what ended may have told nobody, such as an older version.
local MAX_RECHECK_SECONDS = 30
-- Seconds until a refused request is told to come back, at most: clients ignore more.
local MAX_RETRY_SECONDS = 60
-- Seconds between two ends of a key's requests, as refused ones are spread.
local MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 0.05, 30
-- Weight of the latest interval in the moving average.
local INTERVAL_WEIGHT = 0.2

local function held_queue(names, band, pool_name)
    return names.held .. ':' .. band .. ':' .. pool_name
end

local function pool_name_of(pool)
    return pool.base:sub(#'farm:fair:' + 1)
end

-- The pool of that name, as the scripts get the one that they were called for.
local function open_pool(name)
    local pool = {base = 'farm:fair:' .. name, interactive = 'rq:queue:chat:' .. name, batch = 'rq:queue:batch:' .. name,
        idle = 'farm:idle:' .. name, jobs = 'rq:job:'}
    local models = redis.call('ZRANGE', resting_key(pool), 0, -1)
    pool.models = #models > 0 and models or nil
    return pool
end

local function deferred_registry(band, pool_name)
    return 'rq:deferred:' .. (band == BATCH and 'batch:' or 'chat:') .. pool_name
end

-- Number of the key's held requests, and the tokens reserved for them.
local function count_held(names)
    local count = 0
    for _, queue in ipairs(redis.call('SMEMBERS', names.held)) do
        count = count + redis.call('LLEN', names.held .. ':' .. queue)
    end
    return count, count > 0 and tonumber(redis.call('HGET', names.limits, 'tokens') or 0) or 0
end

-- The tokens reserved for a request, and when it was counted in the last minute (0 if not yet).
local function read_reservation(names, job)
    local reservation = redis.call('HGET', names.reserved, job) or ''
    local tokens, second = reservation:match('(%d+):(%d+):')
    return tonumber(tokens or 0), tonumber(second or 0)
end

local function hold(pool, band, key, job, at_front, now)
    local names, pool_name = limit_keys(key), pool_name_of(pool)
    redis.call(at_front and 'LPUSH' or 'RPUSH', held_queue(names, band, pool_name), job)
    redis.call('SADD', names.held, band .. ':' .. pool_name)
    redis.call('ZADD', deferred_registry(band, pool_name), now, job)
    redis.call('HSET', pool.jobs .. job, 'status', 'deferred', 'farm_lined', HELD)
    local tokens, second = read_reservation(names, job)
    if second == 0 then
        redis.call('HINCRBY', names.limits, 'tokens', tokens)
    end
end

-- Takes a request out of the held ones; returns whether it was one.
local function remove_held(pool, band, key, job)
    local names, pool_name = limit_keys(key), pool_name_of(pool)
    local list = held_queue(names, band, pool_name)
    redis.call('ZREM', deferred_registry(band, pool_name), job)
    if redis.call('LREM', list, 1, job) == 0 then
        return false
    end
    local tokens, second = read_reservation(names, job)
    if second == 0 then
        redis.call('HINCRBY', names.limits, 'tokens', 0 - tokens)
    end
    if redis.call('EXISTS', list) == 0 then
        redis.call('SREM', names.held, band .. ':' .. pool_name)
        if redis.call('EXISTS', names.held) == 0 then
            redis.call('HDEL', names.limits, 'tokens', 'ended_at')
        end
    end
    return true
end

-- Frees the slots of started requests that are over: past their latest end, or with a job that is gone. Many of them are
-- looked up once per interval only.
local function free_lost_slots(key, now, job_prefix)
    local names = limit_keys(key)
    count_running(key, now, false, job_prefix)
    if redis.call('SCARD', names.started) > MAX_LOOKUPS
        and not redis.call('SET', names.looked, 1, 'NX', 'PX', LOOKUP_INTERVAL_MS) then
        return
    end
    for _, request in ipairs(redis.call('SMEMBERS', names.started)) do
        if redis.call('EXISTS', job_prefix .. request) == 0 then
            settle_usage(key, request, 0, false)
            redis.call('SREM', names.started, request)
        end
    end
end

-- Takes a slot of the key's concurrency limit for a request that starts; false if there is none. A request that is
-- retried has one.
local function claim_slot(key, job, now, job_prefix)
    local names = limit_keys(key)
    if redis.call('SADD', names.started, job) == 0 then
        return true
    end
    local limit = read_limits(names).concurrency
    if limit == 0 or redis.call('SCARD', names.started) <= limit then
        return true
    end
    free_lost_slots(key, now, job_prefix)
    if redis.call('SCARD', names.started) <= limit then
        return true
    end
    redis.call('SREM', names.started, job)
    return false
end

-- Holds the key's requests that wait in the pool's queue or are set aside, because no slot is left: others of its pools were
-- quicker. They stay in order of arrival, ahead of those that are held already. One that is retried has a slot, and stays.
local function hold_back(pool, band, key, now)
    local names, waiting = limit_keys(key), {}
    local function collect(queue, model)
        for _, job in ipairs(redis.call('LRANGE', queue, 0, -1)) do
            if redis.call('SISMEMBER', names.started, job) == 0 then
                local at = tonumber(redis.call('HGET', pool.jobs .. job, 'farm_at') or nil) or 0
                waiting[#waiting + 1] = {job = job, model = model, at = at, number = #waiting}
            end
        end
    end
    for _, model in ipairs(pool.models or {}) do
        collect(aside_queue(pool, band, key, model), model)
    end
    collect(key_queue(pool, band, key))
    table.sort(waiting, function(a, b) return a.at < b.at or (a.at == b.at and a.number < b.number) end)
    for i = #waiting, 1, -1 do
        local job, model = waiting[i].job, waiting[i].model
        if model then
            remove_aside(pool, band, key, job, model)
        else
            leave_queue(pool, band, key, job)
            -- A worker may have popped it already. Released and run meanwhile, it would be started twice.
            if not remove_from_rq(pool, band, job) then
                redis.call('LREM', pool.intermediate, 1, job)
            end
        end
        hold(pool, band, key, job, true, now)
    end
end

-- Number of the key's requests that are set aside for the model and hold no slot yet.
local function count_aside_without_slot(names, pool, band, key, model)
    local count = 0
    for _, job in ipairs(redis.call('LRANGE', aside_queue(pool, band, key, model), 0, -1)) do
        count = count + 1 - redis.call('SISMEMBER', names.started, job)
    end
    return count
end

-- How many more of the key's requests for the model may join the pool's queue in this band.
local function count_free_places(names, limits, pool, band, key, model)
    if limits.concurrency == 0 then
        return math.huge
    end
    local aside = pool.models and model and count_aside_without_slot(names, pool, band, key, model) or 0
    return limits.concurrency - redis.call('SCARD', names.started) - redis.call('LLEN', key_queue(pool, band, key)) - aside
end

-- Deletes a held request whose job is gone, or was cancelled by RQ's Job.cancel.
local function drop_held(pool, band, key, job)
    remove_held(pool, band, key, job)
    settle_usage(key, job, 0, false)
    redis.call('DEL', pool.jobs .. job)
    delete_body(job)
end

-- Returns the first of a pool's held requests of the key that there is a place for, and when it was admitted; nil for none.
local function find_with_place(key, names, limits, pool, band)
    local list, places, index = held_queue(names, band, pool_name_of(pool)), {}, 0
    local has_any = count_free_places(names, limits, pool, band, key) > 0
    local job = redis.call('LINDEX', list, 0)
    while job do
        local fields = redis.call('HMGET', pool.jobs .. job, 'farm_at', 'status', 'farm_model')
        if not fields[1] or fields[2] == 'canceled' then
            drop_held(pool, band, key, job)
        elseif not has_any then
            return nil
        else
            local model = fields[3] or ''
            places[model] = places[model] or count_free_places(names, limits, pool, band, key, model)
            if places[model] > 0 then
                return job, tonumber(fields[1])
            end
            index = index + 1
        end
        job = redis.call('LINDEX', list, index)
    end
end

-- Returns that of the key's held requests, of all its pools, that there is a place for and that has waited longest. nil if
-- there is none.
local function find_releasable(key, names, limits)
    local first
    for _, queue in ipairs(redis.call('SMEMBERS', names.held)) do
        local band, pool_name = queue:match('^(%a+):(.*)$')
        local pool = open_pool(pool_name)
        local job, at = find_with_place(key, names, limits, pool, band)
        if job and (not first or at < first.at) then
            first = {job = job, at = at, pool = pool, band = band}
        end
    end
    return first
end

-- Moves the key's held requests into their pools' queues, as far as its limits allow; returns whether there were any.
local function release_held(key, now)
    local names = limit_keys(key)
    if redis.call('EXISTS', names.held) == 0 then
        return false
    end
    local limits, has_released = read_limits(names), false
    while true do
        local next_held = find_releasable(key, names, limits)
        if not next_held then
            return has_released
        end
        local pool, band, job = next_held.pool, next_held.band, next_held.job
        local tokens, second = read_reservation(names, job)
        if second == 0 then
            local limit, _, window = check_rates(names, limits, tokens, now, {0, 0})
            if limit ~= '' then
                return has_released
            end
            count_in_window(names, limits, tokens, now, window)
        end
        remove_held(pool, band, key, job)
        local reservation = redis.call('HGET', names.reserved, job)
        if reservation and second == 0 then
            local counted = string.format('%d:%d:%s', tokens, math.floor(now), reservation:match('%d+:%d+:(.*)'))
            redis.call('HSET', names.reserved, job, counted)
        end
        redis.call('HSET', pool.jobs .. job, 'status', 'queued', 'farm_lined', 1)
        join_queue(pool, band, key, job)
        push_to_rq(pool, band, job, now, 'RPUSH')
        has_released = true
    end
end

-- Settles a request that has ended or was withdrawn, and lets the next held one of its key go on. Idempotent.
local function end_usage(key, request, tokens, served)
    settle_usage(key, request, tokens, served)
    local names = limit_keys(key)
    if redis.call('EXISTS', names.held) == 0 then
        return
    end
    local now = read_limit_clock({})
    local fields = redis.call('HMGET', names.limits, 'ended_at', 'interval')
    if fields[1] then
        local latest = math.max(0, now - fields[1])
        local interval = (1 - INTERVAL_WEIGHT) * tonumber(fields[2] or latest) + INTERVAL_WEIGHT * latest
        redis.call('HSET', names.limits, 'interval', interval)
    end
    redis.call('HSET', names.limits, 'ended_at', now)
    release_held(key, now)
end

-- Seconds until a refused request should come back: `wait` at the earliest, and `step` after the one refused before it.
local function book_retry(names, wait, step, now)
    local last = tonumber(redis.call('HGET', names.limits, 'retry_at') or 0)
    local at = math.max(now + wait, last + step)
    if at > now + MAX_RETRY_SECONDS then
        -- More than fit into a minute are spread over its second half, again and again.
        at = now + math.min(wait, MAX_RETRY_SECONDS / 2)
    end
    redis.call('HSET', names.limits, 'retry_at', at)
    return at - now
end

-- Seconds between two ends of the key's requests: as measured, or as the pool's average request suggests.
local function estimate_interval(names, pool, concurrency)
    local interval = tonumber(redis.call('HGET', names.limits, 'interval') or nil)
        or tonumber(redis.call('HGET', pool.base, 'cost') or 1) / math.max(1, concurrency)
    return math.min(math.max(interval, MIN_INTERVAL_SECONDS), MAX_INTERVAL_SECONDS)
end

-- Seconds until a request should come back that is refused because of this limit; `wait` as check_rates says.
local function plan_retry(pool, names, demand, limit, wait, now)
    local step
    if limit == 'requests' then
        step = WINDOW_SECONDS / demand.rpm
    elseif limit == 'tokens' then
        step = WINDOW_SECONDS * demand.tokens / demand.tpm
    else
        step = estimate_interval(names, pool, demand.concurrency)
        wait = step
    end
    return book_retry(names, wait, step, now)
end

-- Seconds until a token limit lets the request through; soon when it would but for what unfinished requests have reserved.
local function shorten_token_wait(names, demand, used, wait, held_tokens)
    local reserved = tonumber(redis.call('HGET', names.quota, 'reserved') or 0) - held_tokens
    if used - reserved + math.min(demand.tokens, demand.tpm) <= demand.tpm then
        return math.min(wait, RESERVED_WAIT_SECONDS)
    end
    return wait
end

-- Which limit makes a request wait, '' for none; seconds until a limit per minute lets it through, 0 if that is unknown;
-- and the window of check_rates.
local function find_limit(pool, band, names, demand, now, ahead)
    local limit, wait, window = check_rates(names, demand, demand.tokens, now, ahead)
    if count_free_places(names, demand, pool, band, demand.key, demand.model) <= 0 then
        free_lost_slots(demand.key, now, pool.jobs)
        if count_free_places(names, demand, pool, band, demand.key, demand.model) <= 0 then
            return 'concurrency', wait, window
        end
    end
    return limit, wait, window
end

-- Whether a key may have one more request, as `demand` says (shared/api_keys/limits.py), which may wait `patience` seconds.
-- Returns '' or the limit that refuses it, seconds until a retry can succeed (0 if unknown), the window of check_rates, and
-- whether an admitted request has to be held.
local function check_limits(pool, band, demand, now, patience)
    local names = limit_keys(demand.key)
    store_limits(names, demand)
    count_running(demand.key, now, false, pool.jobs)
    release_held(demand.key, now)
    local held, held_tokens = count_held(names)
    local limit, wait, window = find_limit(pool, band, names, demand, now, {held, held_tokens})
    local exhausted = find_exhausted_quota(names, demand)
    if exhausted == 'reserved' then
        count_running(demand.key, now, true, pool.jobs)
        exhausted = find_exhausted_quota(names, demand)
    end
    if exhausted == 'reserved' then
        return exhausted, book_retry(names, RESERVED_WAIT_SECONDS, MIN_INTERVAL_SECONDS, now), window, false
    elseif exhausted ~= '' then
        return exhausted, 0, window, false
    elseif limit == '' then
        return '', 0, window, false
    elseif held < demand.max_waiting and wait <= patience then
        return '', 0, window, true
    end
    if held >= demand.max_waiting and held > 0 then
        -- A place is free as soon as the first of the held ones goes on.
        wait = select(2, check_rates(names, demand, demand.tokens, now, {0, 0}))
    elseif wait > patience then
        wait = wait - patience
    end
    if limit == 'tokens' then
        wait = shorten_token_wait(names, demand, window[3], wait, held_tokens)
    end
    return limit, plan_retry(pool, names, demand, limit, wait, now), window, false
end

-- How many of the key's requests go on before the one that was held last.
local function count_ahead_in_key(pool, band, key)
    local _, aside = count_aside(pool, band, key)
    return aside + redis.call('LLEN', key_queue(pool, band, key))
        + redis.call('LLEN', held_queue(limit_keys(key), band, pool_name_of(pool))) - 1
end

-- Seconds until the front of a held request should check whether it may go on; 0 for a request that is not held.
local function next_recheck(key, job, now)
    local names = limit_keys(key)
    local fields = redis.call('HMGET', 'rq:job:' .. job, 'farm_lined', 'farm_band', 'origin')
    if fields[1] ~= HELD then
        return 0
    end
    local list = held_queue(names, fields[2] or INTERACTIVE, fields[3]:match('^%a+:(.*)$'))
    local count, held_tokens = count_held(names)
    local ahead = redis.call('LPOS', list, job) or 0
    local tokens = read_reservation(names, job)
    local limits = read_limits(names)
    local _, wait = check_rates(names, limits, tokens, now, {ahead, count > 0 and held_tokens * ahead / count or 0})
    return wait > 0 and math.min(wait + 0.01, MAX_RECHECK_SECONDS) or MAX_RECHECK_SECONDS
end
