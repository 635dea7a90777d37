-- Fair queueing: start-time fair queueing (Goyal, Vin, Cheng 1996) over the API keys that have requests waiting.
-- Each key has a queue of its own and a start tag: the virtual time at which its first request may start. The key with
-- the smallest tag is served next, and its tag advances by the worker time of the request divided by the key's weight.
-- The real cost is known only at the end, so the average is charged at the start and corrected at the end.
-- RQ's queues hold the same jobs in order of arrival; see docs/scheduling.md.
-- `pool` is {base, interactive, batch, idle, jobs}:
--   base                 hash: virtual time of each band; `end:<band>:<key>` (where the key's next request may start);
--                        `weight:<key>`; `cost` (average, seconds); `turns` (interactive jobs started since the
--                        last batch job, while batch jobs waited)
--   <base>:<band>        sorted set: key -> tag, for the keys with requests waiting
--   <base>:<band>:<key>  list: the key's queue
--   <base>:<band>:<key>:<model>, <base>:aside:…  jobs set aside (model_queues.lua)
--   <base>:retries       sorted set: started requests that wait for another credential (workers/jobs/retries.lua);
--                        those of the batch band are in <base>:retries:batch
--   interactive, batch   RQ's two queues
--   idle                 sorted set: idle worker -> since when
--   jobs                 prefix of job hashes
local INTERACTIVE, BATCH = 'interactive', 'batch'
-- Weight of the latest cost in the moving average.
local EWMA_WEIGHT = 0.1
-- Keys considered when a request's position is estimated, and keys that are named as being ahead of it.
local MAX_KEYS_SCANNED, MAX_KEYS_NAMED = 50, 4
-- Seconds that a worker counts as idle; it renews its entry sooner.
local IDLE_TTL_SECONDS = 90

local function key_queue(pool, band, key)
    return pool.base .. ':' .. band .. ':' .. key
end

local function band_tags(pool, band)
    return pool.base .. ':' .. band
end

local function retries_key(pool, band)
    return pool.base .. (band == BATCH and ':retries:batch' or ':retries')
end

-- Removes a job that waits for another credential; returns whether it did.
local function remove_retry(pool, job)
    if redis.call('ZREM', retries_key(pool, INTERACTIVE), job) + redis.call('ZREM', retries_key(pool, BATCH), job) == 0 then
        return false
    end
    redis.call('LREM', pool.batch, -1, job)
    return true
end

-- Pushes a job to RQ's queue of the band. Idle workers block on the interactive queue only, so a batch job goes there
-- while a worker is idle.
local function push_to_rq(pool, band, job, now, command)
    local list = pool[band]
    if band == BATCH and redis.call('ZCOUNT', pool.idle, now - IDLE_TTL_SECONDS, '+inf') > 0 then
        list = pool.interactive
    end
    redis.call(command, list, job)
end

-- Removes a job from RQ's queues; returns whether it was there.
local function remove_from_rq(pool, band, job)
    return redis.call('LREM', pool[band], 1, job) > 0
        or (band == BATCH and redis.call('LREM', pool.interactive, 1, job) > 0)
end

-- Appends a request to its key's queue and returns the queue's length. A key that had nothing waiting starts at the
-- present virtual time: it has saved up no credit. Without `weight` the key's last one stays.
local function join_queue(pool, band, key, job, weight)
    local length = redis.call('RPUSH', key_queue(pool, band, key), job)
    if length == 1 then
        local times = redis.call('HMGET', pool.base, band, 'end:' .. band .. ':' .. key)
        redis.call('ZADD', band_tags(pool, band), math.max(tonumber(times[1] or 0), tonumber(times[2] or 0)), key)
    end
    if weight then
        redis.call('HSET', pool.base, 'weight:' .. key, weight)
    end
    return length
end

-- Requeues a request that was started: at the front, served before other keys' because it has waited already, or at the
-- back.
local function rejoin_queue(pool, band, key, job, at_front)
    redis.call(at_front and 'LPUSH' or 'RPUSH', key_queue(pool, band, key), job)
    local virtual_time = redis.call('HGET', pool.base, band) or 0
    if redis.call('ZADD', band_tags(pool, band), 'NX', virtual_time, key) == 0 and at_front then
        redis.call('ZADD', band_tags(pool, band), 'LT', virtual_time, key)
    end
end

-- Removes a waiting request from its key's queue.
local function leave_queue(pool, band, key, job)
    local queue = key_queue(pool, band, key)
    if redis.call('LREM', queue, 1, job) > 0 and redis.call('EXISTS', queue) == 0 then
        redis.call('ZREM', band_tags(pool, band), key)
    end
end

-- Returns the band's next job, {band, key, tag, job, is_last}, or nil. `is_last`: the key has no other job waiting.
local function peek_band(pool, band)
    while true do
        local head = redis.call('ZRANGE', band_tags(pool, band), 0, 0, 'WITHSCORES')
        if not head[1] then
            return nil
        end
        local jobs = redis.call('LRANGE', key_queue(pool, band, head[1]), 0, 1)
        if jobs[1] then
            return {band = band, key = head[1], tag = tonumber(head[2]), job = jobs[1], is_last = not jobs[2]}
        end
        redis.call('ZREM', band_tags(pool, band), head[1])
    end
end

-- Returns which of the bands' next jobs is the pool's, or nil. Interactive goes first, but to prevent starvation one job in
-- `every` is a batch job that has waited for `age` seconds.
local function select_next(pool, now, age, every, interactive, batch)
    if not (interactive and batch) then
        return interactive or batch
    end
    interactive.overtakes_batch = true
    if tonumber(redis.call('HGET', pool.base, 'turns') or 0) + 1 < every then
        return interactive
    end
    local since = redis.call('HGET', pool.jobs .. batch.job, 'farm_at')
    return now - tonumber(since or 0) >= age and batch or interactive
end

-- Drops the next job from its key's queue without a charge. `next_job.queue` and `tags` are those of a job that is set
-- aside (model_queues.lua).
local function drop_head(pool, next_job)
    redis.call('LPOP', next_job.queue or key_queue(pool, next_job.band, next_job.key))
    if next_job.is_last then
        redis.call('ZREM', next_job.tags or band_tags(pool, next_job.band), next_job.key)
    end
end

-- Charges the key the average cost (seconds) for one more attempt of a request; returns it.
local function charge_retry(pool, retry)
    local end_field = 'end:' .. retry.band .. ':' .. retry.key
    local fields = redis.call('HMGET', pool.base, end_field, 'cost', 'weight:' .. retry.key)
    local cost = tonumber(fields[2] or 1)
    local charge = cost / tonumber(fields[3] or 1)
    redis.call('HSET', pool.base, end_field, tonumber(fields[1] or 0) + charge)
    redis.call('ZADD', band_tags(pool, retry.band), 'XX', 'INCR', charge, retry.key)
    if retry.band == BATCH then
        redis.call('HSET', pool.base, 'turns', 0)
    end
    return cost
end

-- Takes the next job out of its key's queue and charges the key the average cost (seconds), which is returned.
local function dequeue_and_charge(pool, next_job)
    local band, key = next_job.band, next_job.key
    local tags, end_field = next_job.tags or band_tags(pool, band), 'end:' .. band .. ':' .. key
    local fields = redis.call('HMGET', pool.base, band, end_field, 'cost', 'weight:' .. key)
    local cost = tonumber(fields[3] or 1)
    local next_tag = math.max(next_job.tag, tonumber(fields[2] or 0)) + cost / tonumber(fields[4] or 1)
    redis.call('LPOP', next_job.queue or key_queue(pool, band, key))
    if next_job.is_last then
        redis.call('ZREM', tags, key)
    else
        redis.call('ZADD', tags, next_tag, key)
    end
    redis.call('HSET', pool.base, band, math.max(tonumber(fields[1] or 0), next_job.tag), end_field, next_tag)
    if next_job.overtakes_batch then
        redis.call('HINCRBY', pool.base, 'turns', 1)
    elseif band == BATCH then
        redis.call('HSET', pool.base, 'turns', 0)
    end
    return cost
end

-- Corrects the charge of a request that took `seconds` of a worker's time, and updates the average cost. Returns by how much
-- the key's tag moves.
-- A failed attempt costs its key an average request at least, and does not count as one: else requests that fail at once
-- would be nearly free, and their key would get nearly every free worker.
local function correct_charge(pool, band, key, charged, seconds, has_failed)
    local end_field = 'end:' .. band .. ':' .. key
    local fields = redis.call('HMGET', pool.base, end_field, 'cost', 'weight:' .. key)
    local latest = seconds
    if has_failed then
        seconds, latest = math.max(seconds, charged), tonumber(fields[2] or charged)
    end
    local correction = (seconds - charged) / tonumber(fields[3] or 1)
    local cost = (1 - EWMA_WEIGHT) * tonumber(fields[2] or latest) + EWMA_WEIGHT * latest
    redis.call('HSET', pool.base, end_field, tonumber(fields[1] or 0) + correction, 'cost', cost)
    redis.call('ZADD', band_tags(pool, band), 'XX', 'INCR', correction, key)
    return correction
end

-- Whose requests are ahead, by `counts` (key -> requests): ' <key>:<requests>…', those with the most first, and ' *:<requests>'
-- for all others of the `total`.
local function describe_ahead(counts, total)
    local names, parts = {}, {}
    for name in pairs(counts) do
        names[#names + 1] = name
    end
    table.sort(names, function(a, b) return counts[a] > counts[b] or (counts[a] == counts[b] and a < b) end)
    for i = 1, math.min(#names, MAX_KEYS_NAMED) do
        parts[i] = ' ' .. names[i] .. ':' .. counts[names[i]]
        total = total - counts[names[i]]
    end
    return table.concat(parts) .. (total > 0 and ' *:' .. total or '')
end

-- Estimates how many requests will be served before the last one in the key's queue of this length; returns that, and whose
-- they are, as key -> requests, as far as that is known.
local function estimate_ahead(pool, band, key, length)
    local tags = redis.call('ZRANGE', band_tags(pool, band), 0, MAX_KEYS_SCANNED - 1, 'WITHSCORES')
    local count, counts = length - 1, {}
    if length > 1 then
        counts[key] = length - 1
    end
    if band == BATCH then
        -- RQ's queue, not the queues of ten thousand keys, one by one.
        count = count + redis.call('LLEN', pool.interactive)
    end
    if #tags == 2 then
        return count, counts
    end
    local fields = {'cost', 'weight:' .. key}
    for i = 1, #tags, 2 do
        fields[#fields + 1] = 'weight:' .. tags[i]
    end
    local values = redis.call('HMGET', pool.base, unpack(fields))
    local cost = math.max(tonumber(values[1] or 1), 0.001)
    local own_wait = (length - 1) * cost / tonumber(values[2] or 1)
    local start = tonumber(redis.call('ZSCORE', band_tags(pool, band), key)) + own_wait
    for i = 1, #tags, 2 do
        local gap = start - tonumber(tags[i + 1])
        if tags[i] ~= key and gap > 0 then
            local before = math.ceil(gap * tonumber(values[(i + 1) / 2 + 2] or 1) / cost)
            before = math.min(before, redis.call('LLEN', key_queue(pool, band, tags[i])))
            count, counts[tags[i]] = count + before, before
        end
    end
    return count, counts
end
