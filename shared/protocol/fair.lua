-- Whose request goes next: start-time fair queueing (Goyal, Vin, Cheng 1996) over the API keys that have requests waiting.
-- Each key has a line of its own, and a tag: the virtual time at which its first request may start. The key with the
-- least tag is next; its tag then moves on by the worker time that the request costs, divided by the key's weight. What a
-- request costs is known when it ends: the average is charged at its start, and the difference put right at its end.
-- The jobs lie in RQ's queues all the while, in the order in which they came; docs/scheduling.md tells more.
-- A pool is {base, interactive, batch, idle, jobs}: <base> (hash: the virtual time of each band; `end:<band>:<key>`, where
-- the key's next request may start; `weight:<key>`; `cost`, the average; `turns` since batch was last served while
-- interactive waited), <base>:<band> (sorted set: key -> tag, of those that have requests waiting), <base>:<band>:<key>
-- (list: its line); RQ's two queues; the workers that wait (sorted set: worker -> since when); prefix of job hashes.
local INTERACTIVE, BATCH = 'interactive', 'batch'
-- Share of the last cost in the average.
local EWMA_WEIGHT = 0.1
-- Keys that are looked at when a place in the queue is told.
local MAX_KEYS_SCANNED = 50
-- Seconds that a worker counts as waiting; it says so again sooner.
local IDLE_TTL_SECONDS = 90

local function key_queue(pool, band, key)
    return pool.base .. ':' .. band .. ':' .. key
end

local function band_tags(pool, band)
    return pool.base .. ':' .. band
end

-- Into RQ's queue of the band. Idle workers wait at the interactive one: a batch request that finds one goes there.
local function push_to_rq(pool, band, job, now, command)
    local list = pool[band]
    if band == BATCH and redis.call('ZCOUNT', pool.idle, now - IDLE_TTL_SECONDS, '+inf') > 0 then
        list = pool.interactive
    end
    redis.call(command, list, job)
end

-- Out of RQ's queues; whether it was there.
local function remove_from_rq(pool, band, job)
    return redis.call('LREM', pool[band], 1, job) > 0
        or (band == BATCH and redis.call('LREM', pool.interactive, 1, job) > 0)
end

-- A request comes to the end of its key's line, whose length is returned. A key that had none waiting is served no earlier
-- than those who had.
local function join_queue(pool, band, key, job, weight)
    local length = redis.call('RPUSH', key_queue(pool, band, key), job)
    if length == 1 then
        local found = redis.call('HMGET', pool.base, band, 'end:' .. band .. ':' .. key)
        redis.call('ZADD', band_tags(pool, band), math.max(tonumber(found[1] or 0), tonumber(found[2] or 0)), key)
    end
    redis.call('HSET', pool.base, 'weight:' .. key, weight)
    return length
end

-- A request that was started comes again, first of all because it has waited its turn, or last.
local function rejoin_queue(pool, band, key, job, first)
    redis.call(first and 'LPUSH' or 'RPUSH', key_queue(pool, band, key), job)
    local now = redis.call('HGET', pool.base, band) or 0
    if redis.call('ZADD', band_tags(pool, band), 'NX', now, key) == 0 and first then
        redis.call('ZADD', band_tags(pool, band), 'LT', now, key)
    end
end

-- A request that waits leaves its line without being served.
local function leave_queue(pool, band, key, job)
    local line = key_queue(pool, band, key)
    if redis.call('LREM', line, 1, job) > 0 and redis.call('EXISTS', line) == 0 then
        redis.call('ZREM', band_tags(pool, band), key)
    end
end

-- The key whose turn it is in a band, its tag, its first request and whether that is its last.
local function peek_band(pool, band)
    while true do
        local found = redis.call('ZRANGE', band_tags(pool, band), 0, 0, 'WITHSCORES')
        if not found[1] then
            return nil
        end
        local line = redis.call('LRANGE', key_queue(pool, band, found[1]), 0, 1)
        if line[1] then
            return {band = band, key = found[1], tag = tonumber(found[2]), job = line[1], is_last = not line[2]}
        end
        redis.call('ZREM', band_tags(pool, band), found[1])
    end
end

-- Whose turn it is. Interactive goes first; a batch request that has waited for `age` seconds goes before it once in
-- `every` turns, so that it is served at last.
local function select_next(pool, now, age, every)
    local interactive, batch = peek_band(pool, INTERACTIVE), peek_band(pool, BATCH)
    if not (interactive and batch) then
        return interactive or batch
    end
    interactive.passes = true
    if tonumber(redis.call('HGET', pool.base, 'turns') or 0) + 1 < every then
        return interactive
    end
    local since = redis.call('HGET', pool.jobs .. batch.job, 'farm_at')
    return now - tonumber(since or 0) >= age and batch or interactive
end

-- Its request leaves the line unserved: it was gone already.
local function drop_head(pool, turn)
    redis.call('LPOP', key_queue(pool, turn.band, turn.key))
    if turn.is_last then
        redis.call('ZREM', band_tags(pool, turn.band), turn.key)
    end
end

-- Its request leaves the line and is started: the key's tag moves on by what it is charged, which is returned.
local function dequeue_and_charge(pool, turn)
    local tags, over = band_tags(pool, turn.band), 'end:' .. turn.band .. ':' .. turn.key
    local found = redis.call('HMGET', pool.base, turn.band, over, 'cost', 'weight:' .. turn.key)
    local cost = tonumber(found[3] or 1)
    local next_tag = math.max(turn.tag, tonumber(found[2] or 0)) + cost / tonumber(found[4] or 1)
    redis.call('LPOP', key_queue(pool, turn.band, turn.key))
    if turn.is_last then
        redis.call('ZREM', tags, turn.key)
    else
        redis.call('ZADD', tags, next_tag, turn.key)
    end
    redis.call('HSET', pool.base, turn.band, math.max(tonumber(found[1] or 0), turn.tag), over, next_tag)
    if turn.passes then
        redis.call('HINCRBY', pool.base, 'turns', 1)
    elseif turn.band == BATCH then
        redis.call('HSET', pool.base, 'turns', 0)
    end
    return cost
end

-- A request that was charged has ended after so many seconds of a worker's time.
local function correct_charge(pool, band, key, charged, seconds)
    local over = 'end:' .. band .. ':' .. key
    local found = redis.call('HMGET', pool.base, over, 'cost', 'weight:' .. key)
    local more = (seconds - charged) / tonumber(found[3] or 1)
    local cost = (1 - EWMA_WEIGHT) * tonumber(found[2] or seconds) + EWMA_WEIGHT * seconds
    redis.call('HSET', pool.base, over, tonumber(found[1] or 0) + more, 'cost', cost)
    redis.call('ZADD', band_tags(pool, band), 'XX', 'INCR', more, key)
end

-- Requests of a band that wait.
local function count_waiting(pool, band)
    local count = 0
    for _, key in ipairs(redis.call('ZRANGE', band_tags(pool, band), 0, -1)) do
        count = count + redis.call('LLEN', key_queue(pool, band, key))
    end
    return count
end

-- How many requests go before the last one in the key's line of that length, as far as can be told now.
local function estimate_ahead(pool, band, key, length)
    local tags = redis.call('ZRANGE', band_tags(pool, band), 0, MAX_KEYS_SCANNED - 1, 'WITHSCORES')
    local count = length - 1
    if band == BATCH then
        count = count + count_waiting(pool, INTERACTIVE)
    end
    if #tags == 2 then
        return count
    end
    local fields = {'cost', 'weight:' .. key}
    for i = 1, #tags, 2 do
        fields[#fields + 1] = 'weight:' .. tags[i]
    end
    local found = redis.call('HMGET', pool.base, unpack(fields))
    local cost = math.max(tonumber(found[1] or 1), 0.001)
    local after = (length - 1) * cost / tonumber(found[2] or 1)
    local start = tonumber(redis.call('ZSCORE', band_tags(pool, band), key)) + after
    for i = 1, #tags, 2 do
        local gap = start - tonumber(tags[i + 1])
        if tags[i] ~= key and gap > 0 then
            local before = math.ceil(gap * tonumber(found[(i + 1) / 2 + 2] or 1) / cost)
            count = count + math.min(before, redis.call('LLEN', key_queue(pool, band, tags[i])))
        end
    end
    return count
end
