-- Requests whose attempt has failed wait here for a credential that has not tried them (I6), ahead of the others of their
-- band.
-- Comes after limits.lua, fair.lua, model_queues.lua and ending.lua.
-- A job waits in the `<base>:retries` of its band (sorted set: job -> when it was admitted) and, so that RQ lists it, at the end of RQ's batch queue,
-- where no worker blocks: one that has tried the job would only wake up in vain.
-- Fields of its hash: `farm_lined` is 'retry'; `farm_tried` lists the failed attempts, each ' <credential>:<signature>:…'
-- (workers/attempt/blame.py); `farm_retry_at` is when a credential that has tried it may do so once more.
-- `pool` has these fields too:
--   credentials         hash: credential -> state
--   leases, records     prefixes of leases and of credentials' hashes
--   patience            seconds for which a request may wait
local RETRY = 'retry'
-- Waiting retries that a worker looks at, and idle workers that are considered for one, at most.
local MAX_RETRIES_SCANNED, MAX_IDLE_SCANNED = 16, 50

local function credential_of(worker_name)
    return worker_name:match('([^.~]+)~?%d*$')
end

local function has_tried(tried, credential)
    return string.find(tried, ' ' .. credential .. ':', 1, true) ~= nil
end

-- Whether a credential in this state takes jobs, or will until `limit`: it has workers, and its cooldown ends in time, and its
-- rest for the job's model (nil if no credential rests for any).
local function is_usable(pool, credential, state, limit, model)
    if state == 'cooling' then
        local cooling_until = redis.call('HGET', pool.records .. credential, 'until')
        if (tonumber(cooling_until or nil) or 0) > limit then
            return false
        end
    elseif state ~= 'active' then
        return false
    end
    return redis.call('EXISTS', pool.leases .. credential) == 1 and not is_resting(credential, model, limit)
end

-- Whether a usable credential has not tried the job. Reads the credentials in portions: nearly always the first one
-- holds such a credential.
local function has_untried(pool, job, tried, admitted_at)
    local limit, cursor = tonumber(admitted_at or nil) + pool.patience, '0'
    local model = pool.models and redis.call('HGET', pool.jobs .. job, 'farm_model')
    repeat
        local page = redis.call('HSCAN', pool.credentials, cursor, 'COUNT', 32)
        cursor = page[1]
        for i = 1, #page[2], 2 do
            local credential = page[2][i]
            if not has_tried(tried, credential) and is_usable(pool, credential, page[2][i + 1], limit, model) then
                return true
            end
        end
    until cursor == '0'
    return false
end

-- Makes a job wait for another attempt. The oldest goes first until it is served or convicted: several poisoned requests
-- by turns would keep the credentials that each has paused out of service for as long as all of them take.
local function park(pool, job, now)
    redis.call('HSET', pool.jobs .. job, 'farm_lined', RETRY)
    local fields = redis.call('HMGET', pool.jobs .. job, 'farm_band', 'farm_at')
    redis.call('ZADD', retries_key(pool, fields[1]), fields[2] or now, job)
    redis.call('RPUSH', pool.batch, job)
end

-- Tells one idle worker that has not tried the job to look for it.
local function wake_untried(pool, tried, now)
    local idle = redis.call('ZREVRANGEBYSCORE', pool.idle, '+inf', now - IDLE_TTL_SECONDS, 'LIMIT', 0, MAX_IDLE_SCANNED)
    for _, worker in ipairs(idle) do
        local credential = credential_of(worker)
        if not has_tried(tried, credential) and redis.call('EXISTS', pool.leases .. credential) == 1 then
            redis.call('PUBLISH', 'rq:pubsub:' .. worker, '{"command":"look"}')
            return
        end
    end
end

-- The band's first waiting retry that the credential may run, like peek_band: it has not tried it, or has waited long
-- enough and nobody else can. Passes over the models in `rests`, for which the credential rests.
local function find_retry(pool, band, credential, now, rests)
    for _, job in ipairs(redis.call('ZRANGE', retries_key(pool, band), 0, MAX_RETRIES_SCANNED - 1)) do
        local fields = redis.call('HMGET', pool.jobs .. job, 'farm_tried', 'farm_retry_at', 'farm_at', 'farm_band',
            'farm_key', 'farm_model')
        local tried = fields[1] or ''
        if not rests[fields[6] or ''] and (not has_tried(tried, credential)
            or (now >= tonumber(fields[2] or 0) and not has_untried(pool, job, tried, fields[3] or 0))) then
            return {band = fields[4] or band, key = fields[5] or '-', job = job, is_retry = true}
        end
    end
end
