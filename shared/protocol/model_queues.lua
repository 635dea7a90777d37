-- Jobs set aside: those of a model for which the credential rests whose worker met them (docs/scheduling.md).
-- Comes after fair.lua. All of this exists only while a credential rests for a model, or jobs are still set aside:
--   <base>:resting               sorted set: model -> the latest end of any credential's rest for it (seconds)
--   <base>:aside:<band>          sorted set: job -> when it was admitted
--   <base>:aside:<band>:<model>  sorted set: key -> tag, for the keys with such jobs
--   <base>:<band>:<key>:<model>  list: the key's jobs set aside, in order
--   farm:resting-models:<id>     hash: model -> until when the credential rests for it
-- The model of a job is a field of its hash, `farm_model` (the upstream's name); `farm_lined` is 'aside' meanwhile, and RQ
-- lists it in the batch queue, where no worker blocks.
-- `pool.models` lists the models of <base>:resting, nil where a script has not looked; `pool.intermediate` is RQ's
-- intermediate queue.
local ASIDE = 'aside'
-- Jobs that one script sets aside, at most: a backlog must not stop Redis. The worker comes back at once for the others.
local MAX_SET_ASIDE = 100

local function resting_key(pool)
    return pool.base .. ':resting'
end

local function aside_jobs(pool, band)
    return pool.base .. ':aside:' .. band
end

local function aside_tags(pool, band, model)
    return aside_jobs(pool, band) .. ':' .. model
end

local function aside_queue(pool, band, key, model)
    return key_queue(pool, band, key) .. ':' .. model
end

-- Reads the models for which credentials rest, and forgets those for which none does any more and no job is set aside.
local function load_models(pool, now)
    for _, model in ipairs(redis.call('ZRANGEBYSCORE', resting_key(pool), '-inf', now)) do
        if redis.call('EXISTS', aside_tags(pool, INTERACTIVE, model), aside_tags(pool, BATCH, model)) == 0 then
            redis.call('ZREM', resting_key(pool), model)
        end
    end
    pool.models = redis.call('ZRANGE', resting_key(pool), 0, -1)
end

-- The models for which the credential rests, and when the first of these rests ends (nil for none).
local function read_rests(credential, now)
    local fields, rests, first_end = redis.call('HGETALL', 'farm:resting-models:' .. credential), {}, nil
    for i = 1, #fields, 2 do
        local rests_until = tonumber(fields[i + 1])
        if rests_until > now then
            rests[fields[i]] = true
            first_end = math.min(first_end or rests_until, rests_until)
        end
    end
    return rests, first_end
end

local function is_resting(credential, model, limit)
    local rests_until = model and redis.call('HGET', 'farm:resting-models:' .. credential, model)
    return (tonumber(rests_until or nil) or 0) > limit
end

-- Puts a job that is in no queue among those set aside for its model, at the front of its key's or at the back.
local function put_aside(pool, band, key, job, model, tag, at_front)
    redis.call(at_front and 'LPUSH' or 'RPUSH', aside_queue(pool, band, key, model), job)
    redis.call('ZADD', aside_tags(pool, band, model), 'NX', tag, key)
    redis.call('ZADD', aside_jobs(pool, band), redis.call('HGET', pool.jobs .. job, 'farm_at') or 0, job)
    redis.call('ZADD', resting_key(pool), 'NX', 0, model)
    redis.call('HSET', pool.jobs .. job, 'farm_lined', ASIDE)
    redis.call('RPUSH', pool.batch, job)
end

-- Removes a job that is set aside; returns whether it was.
local function remove_aside(pool, band, key, job, model)
    if redis.call('ZREM', aside_jobs(pool, band), job) == 0 then
        return false
    end
    local queue = aside_queue(pool, band, key, model)
    redis.call('LREM', queue, 1, job)
    if redis.call('EXISTS', queue) == 0 then
        redis.call('ZREM', aside_tags(pool, band, model), key)
    end
    redis.call('LREM', pool.batch, 1, job)
    return true
end

-- The next job set aside for a model, like peek_band: `tag` is not before the virtual time, because the key has earned no credit
-- while its jobs could not be run.
local function peek_model(pool, band, model, virtual_time)
    local tags = aside_tags(pool, band, model)
    while true do
        local head = redis.call('ZRANGE', tags, 0, 0, 'WITHSCORES')
        if not head[1] then
            return nil
        end
        local queue = aside_queue(pool, band, head[1], model)
        local jobs, stored = redis.call('LRANGE', queue, 0, 1), tonumber(head[2])
        if jobs[1] then
            local at = tonumber(redis.call('ZSCORE', aside_jobs(pool, band), jobs[1]) or nil) or 0
            return {band = band, key = head[1], tag = math.max(stored, virtual_time), stored = stored, at = at, job = jobs[1],
                is_last = not jobs[2], queue = queue, tags = tags, model = model}
        end
        redis.call('ZREM', tags, head[1])
    end
end

local function goes_before(a, b)
    if a.tag ~= b.tag then
        return a.tag < b.tag
    elseif a.stored ~= b.stored then
        return a.stored < b.stored
    end
    return a.at < b.at
end

-- The band's next job among those set aside, of a model that is not one of `rests`; nil for none.
local function peek_aside(pool, band, rests)
    if redis.call('EXISTS', aside_jobs(pool, band)) == 0 then
        return nil
    end
    local first, virtual_time = nil, tonumber(redis.call('HGET', pool.base, band) or 0)
    for _, model in ipairs(pool.models) do
        local head = not rests[model] and peek_model(pool, band, model, virtual_time)
        if head and (not first or goes_before(head, first)) then
            first = head
        end
    end
    return first
end

-- The key's first job set aside for the model of its next job, which came later; nil for none. Their tags may differ, because
-- a key earns no credit for jobs set aside.
local function peek_earlier(pool, head, model)
    local queue = aside_queue(pool, head.band, head.key, model)
    local jobs = redis.call('LRANGE', queue, 0, 1)
    return jobs[1] and {band = head.band, key = head.key, tag = head.tag, job = jobs[1], is_last = not jobs[2], queue = queue,
        tags = aside_tags(pool, head.band, model), model = model}
end

-- The band's next job that a credential with these rests may run, like peek_band. Jobs of the models that it rests for are
-- set aside on the way; `sweep` counts them (`count`), remembers those (`jobs`), their API keys (`keys`) and the models that
-- had none before (`new_models`), and says whether there were too many (`is_truncated`): then nil is returned.
local function peek_allowed(pool, band, rests, sweep)
    while true do
        local head, aside = peek_band(pool, band), peek_aside(pool, band, rests)
        local model = head and (aside or next(rests)) and redis.call('HGET', pool.jobs .. head.job, 'farm_model')
        if aside and not (head and head.tag < aside.tag) then
            return aside
        elseif not (model and rests[model]) then
            return aside and model and peek_earlier(pool, head, model) or head
        elseif sweep.count == MAX_SET_ASIDE then
            sweep.is_truncated = true
            return nil
        end
        sweep.count, sweep.jobs[head.job], sweep.keys[head.key] = sweep.count + 1, true, true
        if redis.call('EXISTS', aside_tags(pool, band, model)) == 0 then
            sweep.new_models[model] = true
        end
        drop_head(pool, head)
        if not remove_from_rq(pool, band, head.job) then
            redis.call('LREM', pool.intermediate, 1, head.job)
        end
        put_aside(pool, band, head.key, head.job, model, head.tag, false)
    end
end

-- Gives a key that was just charged the same tag wherever it has jobs.
local function sync_tags(pool, band, key)
    if not pool.models then
        return
    end
    local tag = redis.call('HGET', pool.base, 'end:' .. band .. ':' .. key)
    redis.call('ZADD', band_tags(pool, band), 'XX', tag, key)
    for _, model in ipairs(pool.models) do
        redis.call('ZADD', aside_tags(pool, band, model), 'XX', tag, key)
    end
end

-- Moves the key's tags among the jobs set aside by a correction.
local function shift_tags(pool, band, key, correction)
    for _, model in ipairs(pool.models or {}) do
        redis.call('ZADD', aside_tags(pool, band, model), 'XX', 'INCR', correction, key)
    end
end

-- How many of the band's jobs are set aside, how many of them are the key's, and the most keys that have some of one model.
local function count_aside(pool, band, key)
    local own, keys = 0, 0
    for _, model in ipairs(pool.models or {}) do
        own = own + redis.call('LLEN', aside_queue(pool, band, key, model))
        keys = math.max(keys, redis.call('ZCARD', aside_tags(pool, band, model)))
    end
    return pool.models and redis.call('ZCARD', aside_jobs(pool, band)) or 0, own, keys
end

-- How many jobs of the key and of the same model are set aside, and go before the job.
local function count_aside_before(pool, band, key, job)
    local model = pool.models and redis.call('HGET', pool.jobs .. job, 'farm_model')
    return model and redis.call('LLEN', aside_queue(pool, band, key, model)) or 0
end
